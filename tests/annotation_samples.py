"""Samples of annotations in the documentation of other limiters."""

# https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/#support-traffic-shaping
SAMPLE_OF_KUBERNETES = """
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    kubernetes.io/ingress-bandwidth: 1M
    kubernetes.io/egress-bandwidth: 1M
"""
# https://docs.cilium.io/en/stable/network/kubernetes/bandwidth-manager/
SAMPLE_OF_CILIUM = """
apiVersion: v1
kind: Pod
metadata:
  name: netperf-server
  annotations:
    kubernetes.io/egress-bandwidth: "10M"
    kubernetes.io/ingress-bandwidth: "20M"
"""
# https://docs.tigera.io/calico/latest/networking/configuring/qos-controls, the template of the Deployment
SAMPLE_OF_CALICO = """
apiVersion: v1
kind: Pod
metadata:
  name: my-deployment-0
  annotations:
    qos.projectcalico.org/egressBandwidth: "100M"
    qos.projectcalico.org/egressBurst: "200M"
"""
# https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/configure-qos-for-pods
SAMPLE_OF_TERWAY = """
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    kubernetes.io/ingress-bandwidth: 10M
    kubernetes.io/egress-bandwidth: 10M
    k8s.aliyun.com/qos-class: best-effort
"""
