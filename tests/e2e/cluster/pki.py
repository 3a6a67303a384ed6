"""Keys, certificates and kubeconfigs of the control plane, the nodes and the administrator."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import shape
from .command import run
from .shape import Node

_DAYS = "30"
# What a strict client asks for, such as Python since 3.13.
_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
_SERVER = f"https://{shape.CONTROL_PLANE_IPV4}:{shape.API_PORT}"
CONTROLLER_MANAGER, SCHEDULER, PROXY, ADMIN = (
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "admin",
)


@dataclass(frozen=True, slots=True)
class Pki:
    """Files in one folder, found by the name of who uses them."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that all others are signed with."""
        return self.folder / "ca.crt"

    @property
    def service_accounts(self) -> tuple[Path, Path]:
        """Private and public key of service accounts' tokens."""
        return self.folder / "sa.key", self.folder / "sa.pub"

    def certificate(self, user: str) -> Path:
        """Return certificate of a component, a node (by its name) or the administrator."""
        return self.folder / f"{user}.crt"

    def key(self, user: str) -> Path:
        """Return its private key."""
        return self.folder / f"{user}.key"

    def kubeconfig(self, user: str) -> Path:
        """Return its kubeconfig, for use inside the cluster's network."""
        return self.folder / f"{user}.conf"


def create(folder: Path, nodes: Iterable[Node]) -> Pki:
    """Create all files. Raises ClusterError if openssl fails."""
    pki = Pki(folder)
    folder.mkdir(parents=True, mode=0o700)
    _new_key(pki.key("ca"))
    _openssl(
        "req",
        "-x509",
        "-new",
        "-key",
        pki.key("ca"),
        "-days",
        _DAYS,
        "-subj",
        "/CN=tokenbucket-e2e",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-out",
        pki.authority,
    )
    private, public = pki.service_accounts
    _new_key(private)
    _openssl("pkey", "-in", private, "-pubout", "-out", public)
    subjects = [*_components(), *(_node(node) for node in nodes)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda subject: _certify(pki, *subject), subjects))
    return pki


def kubeconfig(pki: Pki, user: str, server: str = _SERVER) -> str:
    """Return a kubeconfig with all keys in it, so that it can be copied."""
    cluster = {"server": server, "certificate-authority-data": _base64(pki.authority)}
    credentials = {
        "client-certificate-data": _base64(pki.certificate(user)),
        "client-key-data": _base64(pki.key(user)),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tokenbucket-e2e",
            "clusters": [{"name": "tokenbucket-e2e", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [
                {"name": "tokenbucket-e2e", "context": {"cluster": "tokenbucket-e2e", "user": user}}
            ],
        },
        indent=1,
    )


def _components() -> list[tuple[str, str, str]]:
    """Return user, subject and alternative names of all components except nodes."""
    addresses = (shape.CONTROL_PLANE_IPV4, shape.CONTROL_PLANE_IPV6, shape.KUBERNETES_SERVICE, "127.0.0.1")
    api = ",".join(f"IP:{address}" for address in addresses)
    plain = "DNS:client"
    return [
        ("apiserver", "/CN=kube-apiserver", f"{api},DNS:kubernetes,DNS:kubernetes.default.svc"),
        (ADMIN, "/O=system:masters/CN=admin", plain),
        *((user, f"/CN=system:{user}", plain) for user in (CONTROLLER_MANAGER, SCHEDULER, PROXY)),
    ]


def _node(node: Node) -> tuple[str, str, str]:
    return node.name, f"/O=system:nodes/CN=system:node:{node.name}", f"IP:{node.ipv4},IP:{node.ipv6}"


def _certify(pki: Pki, user: str, subject: str, alternative_names: str) -> None:
    request, extensions = pki.folder / f"{user}.csr", pki.folder / f"{user}.ext"
    extensions.write_text(f"{_EXTENSIONS}subjectAltName={alternative_names}\n")
    _new_key(pki.key(user))
    _openssl("req", "-new", "-key", pki.key(user), "-subj", subject, "-out", request)
    _openssl(
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        pki.authority,
        "-CAkey",
        pki.key("ca"),
        "-days",
        _DAYS,
        "-set_serial",
        f"0x{_serial(user)}",
        "-extfile",
        extensions,
        "-out",
        pki.certificate(user),
    )
    pki.kubeconfig(user).write_text(kubeconfig(pki, user))


def _serial(user: str) -> str:
    """Return a different number for each user. Certificates are created at the same time."""
    return user.encode().hex()[:38]


def _new_key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)


def _openssl(*words: str | Path) -> None:
    run(["openssl", *words], part="certificates")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
