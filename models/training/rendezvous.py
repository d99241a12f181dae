"""A torchrun rendezvous for a fixed number of machines.

Torch's c10d rendezvous unpickles anything that a client writes to a store that listens on all interfaces
(pytorch/pytorch#173909). This one keeps only numbers and text in the store, which listens on a single address:
127.0.0.1 for a job on one machine, the address of ``launch.rendezvous`` (or of ``launch.interface``) for several.
The machine that can bind this address hosts the store in its agent, so the store outlives the ranks.

The agents pass through numbered rounds together: one for the first start and one for each restart of the ranks. The
round is passed to the ranks as ``EFFNET_ROUND``; torch's restart count differs between machines if only one of them
lost a rank.
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

from infra.launch.command import RENDEZVOUS_BACKEND, RENDEZVOUS_TOKEN, RESOLVE_S, ROUND

JOIN_S = 600.0  # for all machines to arrive; the supervisor's launch.start_timeout_s is usually shorter
_ANSWER_S = 60.0  # a store that takes longer counts as gone
_POLL_S = 0.1  # polled, because a blocking wait in the store would delay SIGTERM
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def register() -> None:
    """Registers the rendezvous with torchrun."""
    rendezvous_handler_registry.register(RENDEZVOUS_BACKEND, _create)


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    host, _, port = parameters.endpoint.rpartition(":")
    return FixedRendezvous(host, int(port), parameters.min_nodes, parameters.run_id, parameters.get("interface"))


class FixedRendezvous(RendezvousHandler):
    """Rendezvous of a fixed number of machines; see the module docstring.

    Args:
        host: Name or address of the machine that hosts the store.
        port: Port of the store; 0 for any free port (one machine).
        nodes: Number of machines.
        run_id: Name of the job.
        interface: Network interface between the machines; None for the one that routes to ``host``.
    """

    def __init__(self, host: str, port: int, nodes: int, run_id: str, interface: str | None = None) -> None:
        self.host, self.port, self.nodes, self.run_id, self.interface = host, port, nodes, run_id, interface
        self._round = -1
        self._node_rank = 0
        self._server: TCPStore | None = None  # on the host only; lives as long as the agent
        self._store: Store | None = None

    def get_backend(self) -> str:
        """Returns the name under which this rendezvous is registered."""
        return RENDEZVOUS_BACKEND

    @property
    def use_agent_store(self) -> bool:
        """True: the ranks use the agents' store."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Returns when all machines have arrived at the next round.

        Raises:
            RendezvousTimeoutError: Some machines did not arrive in time.
            RendezvousClosedError: A machine has abandoned the job.
            RendezvousConnectionError: The store's machine does not answer, or its name does not resolve.
        """
        deadline = time.monotonic() + JOIN_S
        self._round += 1
        while True:
            try:
                self._join_round(deadline)
                break
            except (RuntimeError, RendezvousClosedError) as error:
                # In the first round this may be the store of a previous start, whose agent is just exiting.
                if self._round or self._server is not None or time.monotonic() > deadline:
                    raise self._to_rendezvous_error(error) from error
                self._store = None
                time.sleep(1.0)
        os.environ[ROUND] = str(self._round)  # the ranks inherit the agent's environment
        store = PrefixStore(f"round_{self._round}", self._connect())
        return RendezvousInfo(store, self._node_rank, self.nodes, RendezvousStoreInfo(self.host, self.port))

    def _join_round(self, deadline: float) -> None:
        store = self._connect()
        position = store.add(_arrival_key(self._round), 1)
        if position > self.nodes:
            raise RendezvousClosedError(f"launch.nnodes={self.nodes} machines have already arrived")
        self._node_rank = position - 1
        while store.add(_arrival_key(self._round), 0) < self.nodes:
            if store.check(["closed"]):
                raise RendezvousClosedError("another machine has abandoned this job")
            if time.monotonic() > deadline:
                raise RendezvousTimeoutError(f"not all of {self.nodes} machines arrived within {JOIN_S:.0f} s")
            time.sleep(_POLL_S)

    def _connect(self) -> Store:
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
        """Binds gloo and NCCL to the network between the machines; on one machine, to the loopback interface."""
        name = self.interface or _find_interface(self.host)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name else ():
            if self.nodes == 1 or self.interface or variable not in os.environ:
                os.environ[variable] = name or ""

    def is_closed(self) -> bool:
        """Returns whether a machine has abandoned the job."""
        return self._store is not None and self._store.check(["closed"])

    def set_closed(self) -> None:
        """Marks the job as abandoned, so that no other machine waits for this one."""
        if self._store is not None:
            self._store.set("closed", "1")

    def num_nodes_waiting(self) -> int:
        """Returns how many machines are already in the next round because some of their ranks died."""
        if self.nodes == 1:
            return 0
        try:
            return self._connect().add(_arrival_key(self._round + 1), 0)
        except RuntimeError as error:
            raise self._to_rendezvous_error(error) from error

    def _to_rendezvous_error(self, error: Exception) -> RendezvousError:
        if isinstance(error, RendezvousError):
            return error
        return RendezvousConnectionError(f"the store at {self.host}:{self.port} does not answer: {error}")

    def get_run_id(self) -> str:
        """Returns the name of the job."""
        return self.run_id

    def shutdown(self) -> bool:
        """Notifies the other machines that this one will not return; returns whether they can be notified."""
        try:
            self.set_closed()
        except RuntimeError:  # the store's host has already exited
            return False
        return True


def _arrival_key(number: int) -> str:
    return f"arrived_{number}"


def _listen(host: str, port: int, interface: str | None, *, alone: bool) -> socket.socket | None:
    """Opens a listening socket on the host's address; None if another machine owns it or another agent uses it.

    Raises:
        RendezvousConnectionError: The name does not resolve, or resolves to a loopback address on this machine only.
    """
    family, kind, address = _resolve(host, port)
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone and ipaddress.ip_address(address[0]).is_loopback and interface is not None:
            address = (address_of(interface), port)  # /etc/hosts often maps a machine's own name to 127.0.1.1
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
            f"launch.rendezvous: {host} resolves to {address[0]} on this machine, which other machines cannot reach; "
            "use its address instead, or launch.interface=NAME"
        )
    return listener


def _resolve(host: str, port: int) -> tuple[int, int, tuple[str, int]]:
    """Returns family, kind and address of a host, whose name may become known during the first ``RESOLVE_S``."""
    deadline = time.monotonic() + float(os.environ.get(RESOLVE_S) or 0)
    while True:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return family, kind, (str(address[0]), int(address[1]))
        except OSError as error:
            if time.monotonic() > deadline:
                raise RendezvousConnectionError(
                    f"launch.rendezvous: {host} does not resolve ({error.strerror})"
                ) from error
            time.sleep(1.0)


def _find_interface(host: str) -> str | None:
    """Returns the interface that routes to ``host``; None if it cannot be determined (IPv6, not Linux)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: the kernel only selects the route
            local_address = probe.getsockname()[0]
    except OSError:
        return None
    names = [name for _, name in socket.if_nameindex()] if sys.platform == "linux" else []
    return next((name for name in names if address_of(name, missing="") == local_address), None)


def address_of(interface: str, missing: str | None = None) -> str:
    """Returns the IPv4 address of a network interface, or ``missing`` if it has none.

    Raises:
        RendezvousConnectionError: The interface has no address, and ``missing`` is None.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            request = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            if missing is not None:
                return missing
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise RendezvousConnectionError(
                f"launch.interface: {interface} has no address on this machine; available interfaces: {names}"
            ) from error
    return socket.inet_ntoa(request[20:24])
