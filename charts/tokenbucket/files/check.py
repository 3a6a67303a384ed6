"""Check that every agent is ready and has reported its node. ``helm test`` runs this program."""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "/apis/tokenbucket.dev/v1alpha1"


def get(path, **query):
    """Return the response of the API server. Raises OSError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    token = (ACCOUNT / "token").read_text().strip()
    request = urllib.request.Request(
        f"https://{host}:{port}{path}?{urllib.parse.urlencode(query)}",
        headers={"Authorization": f"Bearer {token}"},
    )
    trust = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
        return json.load(answer)


def problems(namespace, selector):
    """Return the current problems, and the nodes that have an agent."""
    get(f"{API}/tokenbucketpolicies", limit=1)
    reports = {item["metadata"]["name"] for item in get(f"{API}/tokenbucketnodes")["items"]}
    pods = get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
    sets = get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets", labelSelector=selector)["items"]
    nodes = sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")})
    found = [f"node {node}: has no TokenBucketNode; read the log of its agent" for node in nodes if node not in reports]
    for each in sets:
        desired, ready = each["status"]["desiredNumberScheduled"], each["status"]["numberReady"]
        if ready < desired:
            found.append(f"DaemonSet {each['metadata']['name']}: {ready} of {desired} agents are ready; describe the pods that are not")
    if not sets:
        found.append(f"namespace {namespace}: has no DaemonSet with {selector}; check the release")
    return found, nodes


def main(namespace, selector, patience_s):
    """Wait until no problem is left. Return 0, or 1 after ``patience_s`` seconds."""
    end = time.monotonic() + float(patience_s)
    while True:
        try:
            found, nodes = problems(namespace, selector)
        except OSError as error:
            found, nodes = [f"API server: {error}; check the network and the rights of the service account"], []
        if not found:
            print(f"the agents of {len(nodes)} nodes are ready and have reported: {', '.join(nodes)}")
            return 0
        if time.monotonic() > end:
            print("\n".join(found))
            return 1
        time.sleep(2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
