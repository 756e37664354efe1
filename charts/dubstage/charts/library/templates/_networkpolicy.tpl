{{/* Ports of a rule. Argument: list of numbers. */}}
{{- define "dubstage.tcpPorts" -}}
{{- range . }}
- protocol: TCP
  port: {{ include "dubstage.text" . }}
{{- end }}
{{- end -}}

{{/* One egress rule. Argument: (dict "to" peers "ports" numbers); no peers: any address. */}}
{{- define "dubstage.egressRule" -}}
- ports:
    {{- include "dubstage.tcpPorts" .ports | trim | nindent 4 }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Egress rule for DNS by UDP and TCP. Argument: the root. */}}
{{- define "dubstage.dnsRule" -}}
{{- $dns := .Values.global.networkPolicy.dns -}}
- ports:
    {{- range $dns.ports }}
    - protocol: UDP
      port: {{ include "dubstage.text" . }}
    - protocol: TCP
      port: {{ include "dubstage.text" . }}
    {{- end }}
  {{- with $dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Selector of the pods of a component of this release. Arguments: as dubstage.nameOf. */}}
{{- define "dubstage.componentRule" -}}
- ports:
    {{- include "dubstage.tcpPorts" (list (include "dubstage.portOf" .component)) | trim | nindent 4 }}
  to:
    - podSelector:
        matchLabels:
          {{- include "dubstage.selector" . | nindent 10 }}
{{- end -}}

{{/* Network policy of a component: the addresses that its pods may reach, and the callers that may reach its pods. */}}
{{- define "dubstage.networkPolicy" -}}
{{- $policy := .root.Values.global.networkPolicy -}}
{{- $global := .root.Values.global -}}
{{- $gateway := eq .component "gateway" -}}
{{- $sendsBatches := and $gateway .values.batchesOnKubernetes -}}
{{- $remoteFiles := false -}}
{{- if $gateway -}}
{{- $url := .values.settings.media_url | default "" -}}
{{- if and (contains "://" $url) (not (hasPrefix "file://" $url)) }}{{ $remoteFiles = true }}{{ end -}}
{{- end -}}
{{- if $policy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "dubstage.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        {{- $called := list .values.port }}
        {{- if .values.httpPort }}{{ $called = append $called .values.httpPort }}{{ end }}
        {{- include "dubstage.tcpPorts" $called | trim | nindent 8 }}
      from:
        {{- if $gateway }}
        # The pod of `helm test`.
        {{- end }}
        - podSelector:
            matchLabels:
              app.kubernetes.io/instance: {{ .root.Release.Name }}
              dubstage.io/calls-stages: "true"
        {{- with .values.networkPolicy.ingressFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- if or $policy.metricsFrom $global.monitoring.serviceMonitor.enabled }}
    - ports:
        {{- $ports := list .values.metricsPort }}
        {{- if and .values.triton .values.triton.enabled }}{{ $ports = append $ports 8002 }}{{ end }}
        {{- include "dubstage.tcpPorts" $ports | trim | nindent 8 }}
      from:
        {{- toYaml ($policy.metricsFrom | default (list (dict "namespaceSelector" dict))) | nindent 8 }}
    {{- end }}
  egress:
    {{- include "dubstage.dnsRule" .root | trim | nindent 4 }}
    {{- if $gateway }}
    {{- range $stage := list "audio" "face" "motion" "texture" "render" }}
    {{- include "dubstage.componentRule" (dict "root" $.root "component" $stage) | trim | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- if or (and .values.usesArtefacts (eq $global.artefacts.store "s3")) (eq .values.models.source "objectStore") $remoteFiles }}
    {{- include "dubstage.egressRule" $policy.objectStore | nindent 4 }}
    {{- end }}
    {{- if $global.telemetry.otlpEndpoint }}
    {{- include "dubstage.egressRule" $policy.otlp | nindent 4 }}
    {{- end }}
    {{- if and $gateway (or .values.database.url .values.database.urlSecret.name) }}
    {{- include "dubstage.egressRule" $policy.database | nindent 4 }}
    {{- end }}
    {{- if $sendsBatches }}
    {{- include "dubstage.egressRule" $policy.kubernetesApi | nindent 4 }}
    {{- end }}
    {{- with .values.networkPolicy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}
