#!/bin/sh
# Gives containerd the images of the node's pods. One of them has the names of all images of the control plane.
set -eu
for image in /kind/images/*; do
	ctr --namespace=k8s.io images import --snapshotter=overlayfs "$image"
done
while read -r name; do
	ctr --namespace=k8s.io images tag --force localhost/kubernetes:1 "$name"
done </kind/names
