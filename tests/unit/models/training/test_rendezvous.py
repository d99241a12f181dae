"""How the agents of several machines meet; here all on the loopback interface, each in a thread."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousConnectionError

from models.training import rendezvous
from models.training.rendezvous import FixedRendezvous


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rendezvous writes variables for the ranks."""
    with monkeypatch.context() as patch:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "EFFNET_ROUND"):
            patch.setenv(name, "")
            patch.delenv(name)
        yield


def meet(*agents: FixedRendezvous) -> list[int]:
    """The agents' places, after all have come to their next round."""
    with ThreadPoolExecutor(len(agents)) as pool:
        return [info.rank for info in pool.map(lambda agent: agent.next_rendezvous(), agents)]


def test_one_machine_meets_itself_on_a_free_port_of_the_loopback_interface() -> None:
    info = FixedRendezvous("127.0.0.1", 0, 1, "job").next_rendezvous()
    assert (info.rank, info.world_size) == (0, 1)
    assert info.bootstrap_store_info is not None
    assert info.bootstrap_store_info.master_addr == "127.0.0.1"
    assert info.bootstrap_store_info.master_port > 0
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "lo"


def test_one_machine_s_ranks_talk_over_loopback_whatever_the_user_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    FixedRendezvous("127.0.0.1", 0, 1, "job").next_rendezvous()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_all_machines_get_a_place_and_restart_together_in_a_common_round(port: int) -> None:
    agents = [FixedRendezvous("127.0.0.1", port, 2, "job") for _ in range(2)]
    assert sorted(meet(*agents)) == [0, 1]
    assert [agent.num_nodes_waiting() for agent in agents] == [0, 0]
    with ThreadPoolExecutor(1) as pool:  # ranks of one machine died, and it comes first
        again = pool.submit(agents[0].next_rendezvous)
        deadline = time.monotonic() + 20
        while agents[1].num_nodes_waiting() == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        other = agents[1].next_rendezvous()
        assert {again.result(20).rank, other.rank} == {0, 1}
    assert os.environ["EFFNET_ROUND"] == "1"


def test_a_machine_that_gives_up_lets_no_other_wait(port: int) -> None:
    agents = [FixedRendezvous("127.0.0.1", port, 2, "job") for _ in range(2)]
    meet(*agents)
    assert agents[0].shutdown()
    with pytest.raises(RendezvousClosedError, match="abandoned this job"):
        agents[1].next_rendezvous()


def test_a_store_whose_machine_is_gone_is_named(port: int) -> None:
    agents = [FixedRendezvous("127.0.0.1", port, 2, "job") for _ in range(2)]
    meet(*agents)
    host, guest = sorted(agents, key=lambda agent: agent._server is None)
    host._server = host._store = None
    with pytest.raises(RendezvousConnectionError, match=f"the store at 127.0.0.1:{port} does not answer"):
        guest.num_nodes_waiting()


def test_jobs_with_other_words_do_not_meet(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "JOIN_S", 1.0)
    first = FixedRendezvous("127.0.0.1", port, 1, "job")
    first.next_rendezvous()
    monkeypatch.setenv("EFFNET_RENDEZVOUS_TOKEN", "secret")
    second = FixedRendezvous("127.0.0.1", port, 1, "job")  # a guest in the first one's store
    assert second.next_rendezvous().rank == 0


def test_a_name_that_only_its_own_machine_reaches_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", port))]
    )
    with pytest.raises(RendezvousConnectionError, match=r"n1 resolves to 127\.0\.1\.1 on this machine"):
        FixedRendezvous("n1", port, 2, "job").next_rendezvous()


def test_an_unknown_interface_is_named_beside_those_there_are() -> None:
    with pytest.raises(
        RendezvousConnectionError,
        match=r"launch\.interface: ib9 has no address on this machine; available interfaces: .*lo",
    ):
        rendezvous.address_of("ib9")


def test_a_name_that_a_cluster_resolves_only_later_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, calls = socket.getaddrinfo, []

    def resolve_later(host: str, *arguments: Any, **options: Any) -> Any:
        calls.append(host)
        if len(calls) == 1:
            raise socket.gaierror(-2, "Name or service not known")
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(rendezvous.socket, "getaddrinfo", resolve_later)
    with pytest.raises(RendezvousConnectionError, match="does not resolve"):
        rendezvous._resolve("pod-0", port)
    calls.clear()
    monkeypatch.setenv("EFFNET_RESOLVE_S", "30")
    monkeypatch.setattr(rendezvous.time, "sleep", lambda _: None)
    assert rendezvous._resolve("pod-0", port)[2] == ("127.0.0.1", port)
    assert calls == ["pod-0", "pod-0"]
