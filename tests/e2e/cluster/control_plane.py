"""etcd, API server, controller manager and scheduler, in the root box."""

from __future__ import annotations

from pathlib import Path

from . import pki as names
from . import shape
from .api import Api
from .binaries import Binaries
from .box import Box
from .pki import Pki
from .waiting import wait_for

_ETCD = "http://127.0.0.1:2379"
_READY_TIMEOUT_S = 90.0


def prepare_network(root: Box) -> None:
    """Create a switch for the links of the nodes, with the control plane on it."""
    root.ip(
        "link set lo up",
        f"link add {shape.BRIDGE} type bridge",
        f"link set {shape.BRIDGE} up",
        f"address add {shape.CONTROL_PLANE_IPV4}/{shape.NODE_PREFIX_IPV4} dev {shape.BRIDGE}",
        f"address add {shape.CONTROL_PLANE_IPV6}/{shape.NODE_PREFIX_IPV6} dev {shape.BRIDGE} nodad",
    )


def start_controllers(root: Box, programs: Binaries, pki: Pki, data: Path) -> None:
    """Start the controller manager and the scheduler.

    The API server must be ready: until it has stored its roles, it forbids the controller manager to read
    its health, and the controller manager ends after ten seconds.
    """
    controller_manager = _controller_manager(pki, data)
    root.start(
        "kube-controller-manager", [programs.kubernetes / "kube-controller-manager", *controller_manager]
    )
    scheduler = [
        f"--kubeconfig={pki.kubeconfig(names.SCHEDULER)}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--cert-dir={data / 'kube-scheduler'}",
    ]
    root.start("kube-scheduler", [programs.kubernetes / "kube-scheduler", *scheduler])


def start_etcd(root: Box, programs: Binaries, data: Path) -> None:
    """Start etcd alone."""
    root.start(
        "etcd",
        [
            programs.kubernetes / "etcd",
            f"--data-dir={data / 'etcd'}",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            # The data need not outlive the machine, and waiting for its disk would be what takes longest.
            "--unsafe-no-fsync",
        ],
    )


def start_api_server(root: Box, programs: Binaries, pki: Pki, data: Path) -> None:
    """Start the API server alone."""
    root.start("kube-apiserver", [programs.kubernetes / "kube-apiserver", *_api_server(pki, data)])


def wait_ready(root: Box, api: Api) -> None:
    """Wait until the API server answers. Raises ClusterError when it, or etcd before it, has failed."""
    parts = root.components

    def decided() -> bool:
        return parts.exit_status("etcd") is not None or api.ready()

    wait_for(decided, what="ready", among=parts, component="kube-apiserver", timeout_s=_READY_TIMEOUT_S)
    wait_for(api.ready, what="the API server was ready", among=parts, component="etcd", timeout_s=1.0)


def _api_server(pki: Pki, data: Path) -> list[str]:
    private, public = pki.service_accounts
    return [
        f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={shape.CONTROL_PLANE_IPV4}",
        f"--service-cluster-ip-range={shape.SERVICES}",
        f"--tls-cert-file={pki.certificate('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        f"--client-ca-file={pki.authority}",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--kubelet-certificate-authority={pki.authority}",
        f"--kubelet-client-certificate={pki.certificate(names.ADMIN)}",
        f"--kubelet-client-key={pki.key(names.ADMIN)}",
        # There is no DNS that knows the nodes' names.
        "--kubelet-preferred-address-types=InternalIP",
        f"--cert-dir={data / 'kube-apiserver'}",
        # How soon a stopped server lets go of its watches.
        "--shutdown-delay-duration=0s",
    ]


def _controller_manager(pki: Pki, data: Path) -> list[str]:
    private, _ = pki.service_accounts
    return [
        f"--kubeconfig={pki.kubeconfig(names.CONTROLLER_MANAGER)}",
        f"--root-ca-file={pki.authority}",
        f"--service-account-private-key-file={private}",
        "--use-service-account-credentials",
        f"--cluster-cidr={shape.PODS}",
        # Each node's range follows from its number (shape.py), not from the order in which nodes register.
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--cert-dir={data / 'kube-controller-manager'}",
    ]
