{{- define "tokenbucket.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Renders the prefix of all names, at most 50 characters. A label value has at most 63, and the longest suffix needs 13. */}}
{{- define "tokenbucket.fullname" -}}
{{- $name := include "tokenbucket.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Renders the labels that select pods. They are immutable. Takes a list: the root and the component. */}}
{{- define "tokenbucket.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tokenbucket.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Renders the labels of an object. Takes a list: the root and the component. */}}
{{- define "tokenbucket.labels" -}}
{{- $root := index . 0 -}}
{{ include "tokenbucket.selectorLabels" . }}
app.kubernetes.io/part-of: tokenbucket
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Renders the metadata of an object. Takes a dict: root, component and name; optionally cluster (true: the object has
no namespace), and additional labels and annotations. Each object names its namespace, because tools other than Helm
apply the output of 'helm template', perhaps with a different default namespace. */}}
{{- define "tokenbucket.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "tokenbucket.labels" (list .root .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge dict (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Renders "true" if Helm talks to a cluster, and so runs the hooks of the release. 'helm template' does not: tools that
apply its output take hooks for ordinary objects, and would start the cleanup of a live release. */}}
{{- define "tokenbucket.hooksRun" -}}
{{- if lookup "v1" "Namespace" "" "default" }}true{{ end }}
{{- end }}

{{/* Renders the binding of a role to a service account. Takes the dict of the metadata, with the kind of the role (Role
or ClusterRole; it has the name of the binding) and the account. */}}
{{- define "tokenbucket.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  {{- include "tokenbucket.metadata" (set . "cluster" (eq .kind "ClusterRole")) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* Renders the labels of a pod, without versions, so that a chart upgrade with the same image restarts no pod. Takes a
list: the root, the component, and additional labels, which cannot override the selector labels. */}}
{{- define "tokenbucket.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "tokenbucket.selectorLabels" . | fromYaml -}}
{{- $own := set $own "app.kubernetes.io/part-of" "tokenbucket" -}}
{{- toYaml (merge $own (index . 2) $root.Values.commonLabels) }}
{{- end }}

{{/* Renders the image. Takes a list: the root, and values that override tag and digest. A released chart has the digest of its
image in an annotation, which applies only if no value sets a tag or a digest. */}}
{{- define "tokenbucket.image" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- $repository := $image.repository -}}
{{- with ($root.Values.global).imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- $released := index $root.Chart.Annotations "tokenbucket.dev/image-digest" -}}
{{- if $own.digest }}
{{- printf "%s@%s" $repository $own.digest }}
{{- else if $own.tag }}
{{- printf "%s:%s" $repository $own.tag }}
{{- else if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else if and $released (not $image.tag) }}
{{- printf "%s@%s" $repository $released }}
{{- else }}
{{- printf "%s:%s" $repository (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* Renders the pull secrets of a pod: of this chart, and of a parent chart. */}}
{{- define "tokenbucket.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (.Values.imagePullSecrets | default list) ((.Values.global).imagePullSecrets | default list) -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}

{{- define "tokenbucket.agent.serviceAccount" -}}
{{- default (ternary (printf "%s-agent" (include "tokenbucket.fullname" .)) "default" .Values.agent.serviceAccount.create) .Values.agent.serviceAccount.name }}
{{- end }}

{{- define "tokenbucket.controller.serviceAccount" -}}
{{- default (ternary (printf "%s-controller" (include "tokenbucket.fullname" .)) "default" .Values.controller.serviceAccount.create) .Values.controller.serviceAccount.name }}
{{- end }}

{{/* Renders the security context of a container without access to the node. */}}
{{- define "tokenbucket.harmless" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Renders a map, with the keys of another one in place of its own. Takes a list: both. */}}
{{- define "tokenbucket.withKeys" -}}
{{- $map := index . 0 -}}
{{- range $key, $value := index . 1 | default dict -}}
{{- $_ := set $map $key $value -}}
{{- end -}}
{{- toYaml $map -}}
{{- end }}

{{/* Renders the part of a pod without access to the node: the controller, and the pods of the hooks. */}}
{{- define "tokenbucket.unprivilegedPod" -}}
{{- $controller := .Values.controller -}}
{{- with include "tokenbucket.imagePullSecrets" . }}
{{- . }}
{{ end -}}
priorityClassName: {{ $controller.priorityClassName }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $controller.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $controller.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $controller.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $context := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532
    "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- include "tokenbucket.withKeys" (list $context $controller.podSecurityContext) | nindent 2 }}
{{- end }}

{{/* Renders the environment of every container. Takes a list: the root, and additional variables. */}}
{{- define "tokenbucket.env" -}}
{{- $root := index . 0 -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with $root.Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ $root.Values.k8sServicePort | default 443 | quote }}
{{- end }}
{{- with index . 1 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Renders the type of a profile of seccomp or AppArmor: Unconfined, RuntimeDefault, or the name of one on the node. */}}
{{- define "tokenbucket.profile" -}}
{{- if has . (list "Unconfined" "RuntimeDefault") -}}
type: {{ . }}
{{- else -}}
type: Localhost
localhostProfile: {{ . }}
{{- end -}}
{{- end }}

{{/* Renders the enforcement mode. YAML parses an unquoted Off as false. */}}
{{- define "tokenbucket.enforcement" -}}
{{- .Values.enforcement | default "Off" }}
{{- end }}

{{/* Fails if no metrics are enabled. Takes a list: the root, and the name of the value that requires metrics. */}}
{{- define "tokenbucket.metrics.served" -}}
{{- $values := (index . 0).Values -}}
{{- if not (or $values.agent.metrics.enabled $values.controller.metrics.enabled) -}}
{{- fail (printf "%s.enabled: no metrics are enabled; set agent.metrics.enabled or controller.metrics.enabled" (index . 1)) -}}
{{- end -}}
{{- end }}

{{/* Renders the options, the mount and the volume for TLS of the metrics. The Secret is optional: without it, an agent
serves no metrics, and still limits pods. */}}
{{- define "tokenbucket.metrics.tls" -}}
{{- if .Values.metricsTLS.secret -}}
- --metrics-tls
- /run/metrics-tls/tls.crt
- /run/metrics-tls/tls.key
{{- end }}
{{- end }}

{{- define "tokenbucket.metrics.tlsMount" -}}
{{- if .Values.metricsTLS.secret -}}
- name: metrics-tls
  mountPath: /run/metrics-tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "tokenbucket.metrics.tlsVolume" -}}
{{- with .Values.metricsTLS.secret -}}
- name: metrics-tls
  secret:
    secretName: {{ . }}
    optional: true
{{- end }}
{{- end }}
