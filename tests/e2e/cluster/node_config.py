"""Configuration of a node's programs. The same for a node in namespaces and one in a virtual machine, but for
what their kernels' cgroups ask.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .binaries import Binaries
from .cilium_programs import cilium_programs
from .images import PAUSE_TAG, Image
from .pki import Pki
from .shape import Node

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

_CONTAINERD = """\
version = 3
root = "{root}"
state = "/run/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE a process cannot lower its score.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = {plugins}
    conf_dir = "/etc/cni/net.d"
"""


def write(folder: Path, networks: Path, node: Node, programs: Binaries) -> Path:
    """Write the configuration of containerd, which is returned, and of the pods' network."""
    networks.mkdir(parents=True, exist_ok=True)
    (networks / "10-pods.conflist").write_text(cni(node))
    config = folder / "containerd.toml"
    config.write_text(containerd(programs, plugins=_plugins(node, programs)))
    return config


def containerd(
    programs: Binaries, root: str = "/var/lib/containerd", plugins: Sequence[Path] | None = None
) -> str:
    """Return the configuration of containerd: no registry, and these CNI plugins or the cached ones."""
    folders = json.dumps([str(folder) for folder in plugins or [programs.cni]])
    return _CONTAINERD.format(root=root, socket=CONTAINERD_SOCKET, pause=PAUSE_TAG, plugins=folders)


def _plugins(node: Node, programs: Binaries) -> list[Path]:
    return [programs.cni, *([cilium_programs().folder] if node.cni == "cilium" else [])]


def cni(node: Node) -> str:
    """Return the pod network of the node: dual stack, routed, with port mappings and bandwidth, or Cilium."""
    if node.cni == "cilium":
        return json.dumps({"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]})
    interface: dict[str, Any] = {"type": node.cni, "ipMasq": False, "ipam": _addresses(node)}
    if node.cni == "bridge":
        interface |= {"bridge": "cni0", "isGateway": True, "hairpinMode": True}
    plugins = [
        interface,
        {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}, indent=1)


def kubelet(node: Node, pki: Pki, cgroup: str | None, taints: Sequence[str] = ()) -> str:
    """Return the configuration of the kubelet. A new node joins with the taints of these keys.

    With ``cgroup``, all pods are below it, on a kernel where others use the cgroup hierarchies too.
    """
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "x509": {"clientCAFile": str(pki.authority)},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate(node.name)),
        "tlsPrivateKeyFile": str(pki.key(node.name)),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        # No image can be fetched again: none may be collected.
        "imageGCHighThresholdPercent": 100,
        "maxPods": 250,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "registerWithTaints": [{"key": key, "effect": "NoSchedule"} for key in taints],
    }
    if cgroup is not None:
        config |= {
            "cgroupRoot": f"/{cgroup}",
            "failCgroupV1": False,
            # Settings of the whole machine that it may not change are then no failure.
            "featureGates": {"KubeletInUserNamespace": True},
        }
    return json.dumps(config, indent=1)


def kubelet_argv(node: Node, programs: Binaries, pki: Pki, config: Path) -> list[str]:
    """Return the command line of the kubelet."""
    return [
        str(programs.kubernetes / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={pki.kubeconfig(node.name)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.ipv4},{node.ipv6}",
        f"--node-labels=tokenbucket.test/cni={node.cni},tokenbucket.test/kind={node.kind}",
        "--root-dir=/var/lib/kubelet",
        "--cert-dir=/var/lib/kubelet/pki",
    ]


def proxy_argv(node: Node, programs: Binaries, pki: Pki, cluster_cidr: str) -> list[str]:
    """Return the command line of kube-proxy."""
    return [
        str(programs.kubernetes / "kube-proxy"),
        f"--kubeconfig={pki.kubeconfig('kube-proxy')}",
        "--proxy-mode=nftables",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={cluster_cidr}",
        # Limits of the whole machine: leave them.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]


def import_argv(image: Image, programs: Binaries) -> list[str]:
    """Return the command line that imports an image on a node."""
    return [
        str(programs.containerd / "ctr"),
        "--namespace",
        "k8s.io",
        "image",
        "import",
        "--local",
        str(image.archive),
    ]


def _addresses(node: Node) -> dict[str, Any]:
    return {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods_ipv4}], [{"subnet": node.pods_ipv6}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
