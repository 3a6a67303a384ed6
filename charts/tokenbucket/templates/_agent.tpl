{{/* Renders the DaemonSet of one track. Takes a list: the root, the track (stable or canary), and values that override the
image. */}}
{{- define "tokenbucket.agent.daemonset" -}}
{{- $root := index . 0 -}}
{{- $track := index . 1 -}}
{{- $image := index . 2 -}}
{{- $agent := $root.Values.agent -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  {{- $name := printf "%s-agent%s" (include "tokenbucket.fullname" $root) (ternary "-canary" "" (eq $track "canary")) }}
  {{- include "tokenbucket.metadata" (dict "root" $root "component" "agent" "name" $name
    "labels" (dict "tokenbucket.dev/track" $track)) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "tokenbucket.selectorLabels" (list $root "agent") | nindent 6 }}
      tokenbucket.dev/track: {{ $track }}
  minReadySeconds: {{ int $agent.minReadySeconds }}
  updateStrategy:
    {{- toYaml $agent.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "tokenbucket.podLabels" (list $root "agent" $agent.podLabels) | nindent 8 }}
        tokenbucket.dev/track: {{ $track }}
      annotations:
        kubectl.kubernetes.io/default-container: agent
        {{- with $agent.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "tokenbucket.agent.serviceAccount" $root }}
      automountServiceAccountToken: true
      {{- with include "tokenbucket.imagePullSecrets" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      # The host-side interfaces of pods are in the network namespace of the node.
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      priorityClassName: {{ $agent.priorityClassName }}
      terminationGracePeriodSeconds: 30
      nodeSelector:
        kubernetes.io/os: linux
        {{- with $agent.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "tokenbucket.agent.affinity" (list $agent $track) }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $agent.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "tokenbucket.agent.podSecurityContext" $agent | nindent 8 }}
      {{- if $agent.mountBpffs }}
      initContainers:
        - name: mount-bpffs
          image: {{ include "tokenbucket.image" (list $root $image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [sh, -c]
          args:
            - test "$(stat -f -c %T /sys/fs/bpf)" = bpf_fs || mount -t bpf bpf /sys/fs/bpf
          securityContext:
            privileged: true # Kubernetes allows only privileged containers to mount a file system on the node
            readOnlyRootFilesystem: true
          volumeMounts:
            - name: bpffs
              mountPath: /sys/fs/bpf
              mountPropagation: Bidirectional
      {{- end }}
      containers:
        - name: agent
          image: {{ include "tokenbucket.image" (list $root $image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            {{- include "tokenbucket.agent.args" $root | nindent 12 }}
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            {{- include "tokenbucket.env" (list $root $agent.extraEnv) | nindent 12 }}
            {{- if or (and $agent.metrics.enabled (not $agent.metrics.host)) ($root.Values.live).enabled }}
            - name: NODE_IP
              valueFrom:
                fieldRef:
                  fieldPath: status.hostIP
            {{- end }}
          {{- if $agent.metrics.enabled }}
          ports:
            - name: metrics
              containerPort: {{ int $agent.metrics.port }}
          {{- end }}
          # A starting node is under load, so the kubelet waits up to 5 minutes for the first answer of the agent.
          startupProbe:
            {{- include "tokenbucket.agent.probe" (list "/healthz" $agent.probePort) | nindent 12 }}
            periodSeconds: 2
            failureThreshold: 150
          livenessProbe:
            {{- include "tokenbucket.agent.probe" (list "/healthz" $agent.probePort) | nindent 12 }}
            periodSeconds: 20
            failureThreshold: 3
          readinessProbe:
            {{- include "tokenbucket.agent.probe" (list "/readyz" $agent.probePort) | nindent 12 }}
            periodSeconds: 5
            failureThreshold: 3
          resources:
            {{- toYaml $agent.resources | nindent 12 }}
          securityContext:
            privileged: false
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
              add: {{ include "tokenbucket.agent.capabilities" $root }}
          volumeMounts:
            - name: bpffs
              mountPath: /sys/fs/bpf
              mountPropagation: HostToContainer
            - name: cni-results
              mountPath: {{ $agent.cniResultsPath }}
              readOnly: true
            {{- if $agent.enterPods }}
            # HostToContainer shows namespaces that the container runtime mounts later.
            - name: pod-namespaces
              mountPath: /run/netns
              mountPropagation: HostToContainer
              readOnly: true
            {{- end }}
            - name: tmp
              mountPath: /tmp
            {{- with and $agent.metrics.enabled (include "tokenbucket.metrics.tlsMount" $root) }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $agent.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        {{- with and $agent.metrics.enabled (include "tokenbucket.metrics.tlsVolume" $root) }}
        {{- . | nindent 8 }}
        {{- end }}
        - name: bpffs
          hostPath:
            path: /sys/fs/bpf
            type: Directory
        - name: cni-results
          hostPath:
            path: {{ $agent.cniResultsPath }}
            type: DirectoryOrCreate
        {{- if $agent.enterPods }}
        - name: pod-namespaces
          hostPath:
            path: /run/netns
            type: DirectoryOrCreate
        {{- end }}
        # bcc writes temporary files.
        - name: tmp
          emptyDir:
            medium: Memory
            sizeLimit: 64Mi
        {{- with $agent.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{- define "tokenbucket.agent.podSecurityContext" -}}
{{- $context := dict "runAsUser" 0 "runAsGroup" 0 "runAsNonRoot" false
  "seccompProfile" (include "tokenbucket.profile" (.seccompProfile | default "RuntimeDefault") | fromYaml)
  "appArmorProfile" (include "tokenbucket.profile" .appArmorProfile | fromYaml) -}}
{{- with .seLinuxOptions -}}
{{- $_ := set $context "seLinuxOptions" . -}}
{{- end -}}
{{- include "tokenbucket.withKeys" (list $context .podSecurityContext) -}}
{{- end }}

{{/* NET_ADMIN: filters, qdiscs, and addresses in the network namespaces of pods. NET_BROADCAST: netlink notifications from
these namespaces. BPF: the program and its maps. PERFMON: the verifier rejects the program without it. SYS_ADMIN:
setns(2) to the network namespace of a pod. */}}
{{- define "tokenbucket.agent.capabilities" -}}
[NET_ADMIN, NET_BROADCAST, BPF, PERFMON{{ if .Values.agent.enterPods }}, SYS_ADMIN{{ end }}]
{{- end }}

{{- define "tokenbucket.protectedNamespaces" -}}
{{- range concat (list .Release.Namespace) .Values.protectedNamespaces | uniq }}
- --protected-namespace={{ . }}
{{- end }}
{{- end }}

{{- define "tokenbucket.agent.args" -}}
- agent
- --enforcement-configmap={{ include "tokenbucket.fullname" . }}
{{- include "tokenbucket.protectedNamespaces" . }}
- --slots={{ int .Values.agent.slots }}
- --peers={{ int .Values.agent.peers }}
- --attach={{ .Values.agent.attach }}
- --start-jitter={{ .Values.agent.startJitterSeconds }}
- --report-spread={{ .Values.agent.reportSpreadSeconds }}
- --cni-results={{ .Values.agent.cniResultsPath }}
- --probe-address=127.0.0.1:{{ int .Values.agent.probePort }}
{{- with .Values.agent.metrics }}
{{- if .enabled }}
- --metrics-address={{ .host | default "$(NODE_IP)" }}:{{ int .port }}
{{- with include "tokenbucket.metrics.tls" $ }}
{{ . }}
{{- end }}
{{- if not .perPod }}
- --no-pod-metrics
{{- end }}
{{- end }}
{{- end }}
{{- if (.Values.live).enabled }}
- --live-address=$(NODE_IP):{{ int .Values.live.agentPort }}
{{- end }}
{{- if .Values.agent.readinessGates }}
- --readiness-gates
{{- end }}
{{- if .Values.agent.bandwidthAnnotations }}
- --bandwidth-annotations
{{- end }}
{{- if .Values.agent.removeTaint }}
- --remove-taint
{{- end }}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
{{- with .Values.agent.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tokenbucket.agent.probe" -}}
httpGet:
  host: 127.0.0.1
  path: {{ index . 0 }}
  port: {{ int (index . 1) }}
timeoutSeconds: 5
{{- end }}

{{/* Renders the affinity. Takes a list: the agent's values and the track. The terms of a node affinity are alternatives, so
each of them gets all requirements. */}}
{{- define "tokenbucket.agent.affinity" -}}
{{- $agent := index . 0 -}}
{{- $requirements := $agent.nodeRequirements | default list -}}
{{- if $agent.canary.enabled -}}
{{- $operator := ternary "In" "NotIn" (eq (index . 1) "canary") -}}
{{- $requirements = prepend $requirements (dict "key" $agent.canary.nodeLabel "operator" $operator "values" (list "true")) -}}
{{- end -}}
{{- $affinity := deepCopy ($agent.affinity | default dict) -}}
{{- if $requirements -}}
{{- $nodes := $affinity.nodeAffinity | default dict -}}
{{- $required := $nodes.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $expressions := concat $requirements (.matchExpressions | default list) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" $expressions) .) -}}
{{- end -}}
{{- $_ := set $nodes "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
{{- $_ := set $affinity "nodeAffinity" $nodes -}}
{{- end -}}
{{- with $affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}

{{/* Renders the label selector for the agent pods of both tracks. */}}
{{- define "tokenbucket.agent.selector" -}}
app.kubernetes.io/name={{ include "tokenbucket.name" . }},app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=agent
{{- end }}
