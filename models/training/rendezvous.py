"""How the agents of one job meet: a torchrun rendezvous for a fixed number of machines.

Torch's c10d rendezvous unpickles what anybody writes into a store that listens on all interfaces
(pytorch/pytorch#173909). This one keeps numbers and text in the store, and the store listens on one address only:
127.0.0.1 for a job of one machine, the address of ``launch.rendezvous`` (or of ``launch.interface``) for several.
The machine on which that address can be bound hosts the store, in its agent, so it outlives the ranks.

The agents go through numbered rounds together: the first start, then one for each restart of the ranks. The round is
passed to the ranks as ``EFFNET_ROUND``; torch's own count differs between machines of which only one lost a rank.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import sys
import time
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
    rendezvous_handler_registry,
)

from infra.launch.command import RENDEZVOUS_BACKEND, RENDEZVOUS_TOKEN, ROUND

JOIN_S = 600.0  # for all machines to arrive; the supervisor's launch.start_timeout_s is usually shorter
_ANSWER_S = 60.0  # a store that is this late is gone
_POLL_S = 0.1  # a wait inside the store would delay SIGTERM
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def register() -> None:
    """Makes the rendezvous known to torchrun."""
    rendezvous_handler_registry.register(RENDEZVOUS_BACKEND, _create)


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    host, _, port = parameters.endpoint.rpartition(":")
    return FixedRendezvous(host, int(port), parameters.min_nodes, parameters.run_id, parameters.get("interface"))


class FixedRendezvous(RendezvousHandler):
    """See the module.

    Args:
        host: name or address of the machine that hosts the store.
        port: port of the store; 0 for any (one machine).
        nodes: number of machines.
        run_id: name of the job.
        interface: network interface between the machines; None for the one that leads to ``host``.
    """

    def __init__(self, host: str, port: int, nodes: int, run_id: str, interface: str | None = None) -> None:
        self.host, self.port, self.nodes, self.run_id, self.interface = host, port, nodes, run_id, interface
        self._round = -1
        self._node_rank = 0
        self._server: TCPStore | None = None  # on the host only; lives as long as the agent
        self._store: Store | None = None

    def get_backend(self) -> str:
        """The name under which torchrun knows this rendezvous."""
        return RENDEZVOUS_BACKEND

    @property
    def use_agent_store(self) -> bool:
        """The ranks use the agents' store."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Returns when all machines have arrived at the next round.

        Raises:
            RendezvousTimeoutError: some did not arrive.
            RendezvousClosedError: one has given the job up.
            RendezvousConnectionError: the store's machine does not answer, or its name leads nowhere.
        """
        deadline = time.monotonic() + JOIN_S
        self._round += 1
        while True:
            try:
                self._meet(deadline)
                break
            except (RuntimeError, RendezvousClosedError) as error:
                # In the first round it may be the store of the start before this one, whose agent is just ending.
                if self._round or self._server is not None or time.monotonic() > deadline:
                    raise self._lost(error) from error
                self._store = None
                time.sleep(1.0)
        os.environ[ROUND] = str(self._round)  # the agent hands its environment on to the ranks
        store = PrefixStore(f"round_{self._round}", self._connected())
        return RendezvousInfo(store, self._node_rank, self.nodes, RendezvousStoreInfo(self.host, self.port))

    def _meet(self, deadline: float) -> None:
        store = self._connected()
        place = store.add(_arrived(self._round), 1)
        if place > self.nodes:
            raise RendezvousClosedError(f"launch.nnodes={self.nodes} machines have come already")
        self._node_rank = place - 1
        while store.add(_arrived(self._round), 0) < self.nodes:
            if store.check(["closed"]):
                raise RendezvousClosedError("another machine has given this job up")
            if time.monotonic() > deadline:
                raise RendezvousTimeoutError(f"not all of {self.nodes} machines came within {JOIN_S:.0f} s")
            time.sleep(_POLL_S)

    def _connected(self) -> Store:
        if self._store is None:
            self._store = PrefixStore(f"agents/{os.environ.get(RENDEZVOUS_TOKEN, '')}/{self.run_id}", self._tcp_store())
        return self._store

    def _tcp_store(self) -> TCPStore:
        timeout = timedelta(seconds=_ANSWER_S)
        listener = _listen(self.host, self.port, self.interface, alone=self.nodes == 1)
        if listener is not None:
            self.host, self.port = listener.getsockname()[:2]
            self._server = TCPStore(
                self.host,
                self.port,
                None,
                is_master=True,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )
        self._choose_interface()
        return self._server or TCPStore(self.host, self.port, None, is_master=False, timeout=timeout)

    def _choose_interface(self) -> None:
        """Keeps gloo and NCCL on the network between the machines, on one machine on the loopback interface."""
        name = self.interface or _interface_towards(self.host)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name else ():
            if self.nodes == 1 or self.interface or variable not in os.environ:
                os.environ[variable] = name or ""

    def is_closed(self) -> bool:
        """Whether a machine has given the job up."""
        return self._store is not None and self._store.check(["closed"])

    def set_closed(self) -> None:
        """Lets no other machine wait for this one."""
        if self._store is not None:
            self._store.set("closed", "1")

    def num_nodes_waiting(self) -> int:
        """Machines that are in the next round already, because ranks of theirs died."""
        if self.nodes == 1:
            return 0
        try:
            return self._connected().add(_arrived(self._round + 1), 0)
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> RendezvousError:
        if isinstance(error, RendezvousError):
            return error
        return RendezvousConnectionError(f"the store at {self.host}:{self.port} does not answer: {error}")

    def get_run_id(self) -> str:
        """The name of the job."""
        return self.run_id

    def shutdown(self) -> bool:
        """Tells the other machines that this one does not come again."""
        try:
            self.set_closed()
        except RuntimeError:  # the host has ended first
            return False
        return True


def _arrived(number: int) -> str:
    return f"arrived_{number}"


def _listen(host: str, port: int, interface: str | None, *, alone: bool) -> socket.socket | None:
    """A listening socket on the host's address; None where that is another machine's, or another agent has it.

    Raises:
        RendezvousConnectionError: the name leads nowhere, or is a loopback address to this machine only.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise RendezvousConnectionError(f"launch.rendezvous: {host} leads nowhere ({error.strerror})") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone and ipaddress.ip_address(address[0]).is_loopback and interface is not None:
            address = (address_of(interface), port)  # /etc/hosts often gives a machine's own name 127.0.1.1
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
            return None
        raise RendezvousConnectionError(f"launch.rendezvous: cannot listen on {host}:{port}: {error}") from error
    if not alone and ipaddress.ip_address(address[0]).is_loopback and address[0] != host and host != "localhost":
        listener.close()
        raise RendezvousConnectionError(
            f"launch.rendezvous: {host} is {address[0]} on its own machine, which no other one reaches; "
            "give its address instead, or launch.interface=NAME"
        )
    return listener


def _interface_towards(host: str) -> str | None:
    """The interface by which this machine reaches ``host``; None where the system does not say (IPv6, not Linux)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: the system only chooses the way
            mine = probe.getsockname()[0]
    except OSError:
        return None
    names = [name for _, name in socket.if_nameindex()] if sys.platform == "linux" else []
    return next((name for name in names if address_of(name, missing="") == mine), None)


def address_of(interface: str, missing: str | None = None) -> str:
    """The IPv4 address of a network interface.

    Raises:
        RendezvousConnectionError: there is none, and no ``missing`` to return instead.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            if missing is not None:
                return missing
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise RendezvousConnectionError(
                f"launch.interface: {interface} has no address here; there are {names}"
            ) from error
    return socket.inet_ntoa(answer[20:24])
