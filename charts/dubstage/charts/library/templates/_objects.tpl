{{/* All objects of a component's chart. */}}
{{- define "dubstage.objects" -}}
{{- $values := include "dubstage.values" . | fromYaml -}}
{{- range $name, $fact := include "dubstage.facts" .Chart.Name | fromYaml }}{{ $_ := set $values $name $fact }}{{ end -}}
{{- if not $values.modelVariable }}{{ $_ := set $values "models" (dict "source" "image") }}{{ end -}}
{{- if eq .Chart.Name "gateway" }}
{{- /* A single gateway may be alone with its data folder: the old gateway ends before the new gateway starts. */}}
{{- $_ := set $values "replicas" (include "dubstage.mostGateways" .Values | int) }}
{{- if le $values.replicas 1 }}{{ $_ := set $values "strategy" (dict "type" "Recreate") }}{{ end }}
{{- end -}}
{{- $context := dict "root" . "component" .Chart.Name "values" $values -}}
{{- include "dubstage.serviceAccount" $context }}
---
{{ include "dubstage.deployment" $context }}
---
{{ include "dubstage.service" $context }}
---
{{ include "dubstage.podDisruptionBudget" $context }}
{{- range $kind := list "networkPolicy" "autoscaler" "serviceMonitor" (printf "%s.objects" .Chart.Name) }}
{{- $name := ternary $kind (printf "dubstage.%s" $kind) (contains "." $kind) }}
{{- with include $name $context | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Service account of a component. Only the gateway's may get a role: to send batches to Kubernetes (templates/batch.yaml of the umbrella
     chart). No other component calls the Kubernetes API. */}}
{{- define "dubstage.serviceAccount" -}}
{{- if .values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "dubstage.serviceAccountOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{/* Service of a component. A stage's Service is headless: its name resolves to the addresses of all ready pods, and the gateway
     spreads its calls over the pods. With a cluster IP, all calls of an HTTP/2 connection would go to one pod. */}}
{{- define "dubstage.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
    {{- if ne .component "gateway" }}
    dubstage.io/metrics: "true"
    {{- end }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if eq .values.service.type "Headless" }}
  clusterIP: None
  {{- else }}
  type: {{ .values.service.type }}
  {{- end }}
  selector:
    {{- include "dubstage.selector" . | nindent 4 }}
  ports:
    - name: grpc
      port: {{ .values.port }}
      targetPort: grpc
      appProtocol: grpc
    {{- if .values.httpPort }}
    - name: http
      port: {{ .values.httpPort }}
      targetPort: http
      appProtocol: {{ ternary "https" "http" .root.Values.global.tls.enabled }}
    {{- end }}
    {{- if ne .component "gateway" }}
    - name: metrics
      port: {{ .values.metricsPort }}
      targetPort: metrics
    {{- end }}
{{- end -}}

{{- define "dubstage.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
spec:
  # With minAvailable: 1, the node of a single replica could never be drained.
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready does not delay a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "dubstage.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "dubstage.serviceMonitor" -}}
{{- with .root.Values.global.monitoring.serviceMonitor }}
{{- if .enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "dubstage.nameOf" $ }}
  namespace: {{ $.root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" $ | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  jobLabel: app.kubernetes.io/component
  selector:
    matchLabels:
      {{- include "dubstage.selector" $ | nindent 6 }}
      dubstage.io/metrics: "true"
  endpoints:
    - port: metrics
      interval: {{ .interval }}
    {{- if and $.values.triton $.values.triton.enabled }}
    - port: triton-metrics
      interval: {{ .interval }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}
