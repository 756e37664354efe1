{{/*
The three probes. The startup probe succeeds when the models are loaded. The readiness probe succeeds while the server serves. The
liveness probe asks for the health of the name "liveness". A server answers this call from its event loop, even if all workers are busy,
so the probe fails only if the process hangs. The gRPC probes of the kubelet have no TLS and send no token: a server with TLS or tokens
has a port that serves only health, and the probes call this port. Argument: (dict "root" $ "component" … "values" values).
*/}}
{{- define "dubstage.probes" -}}
{{- range $kind := list "startup" "readiness" "liveness" }}
{{- $probe := index $.values.probes $kind }}
{{ $kind }}Probe:
  {{- if eq $.values.probes.type "exec" }}
  exec:
    command:
      - /opt/dubstage/bin/python
      - -m
      - services.common.server.health_check
      {{- if eq $kind "liveness" }}
      - --service=liveness
      {{- end }}
  {{- else }}
  grpc:
    port: {{ ternary $.values.healthPort $.values.port (eq (include "dubstage.hasHealthPort" $) "true") }}
    service: {{ ternary "liveness" "" (eq $kind "liveness") | quote }}
  {{- end }}
  periodSeconds: {{ $probe.periodSeconds }}
  timeoutSeconds: {{ $probe.timeoutSeconds }}
  failureThreshold: {{ $probe.failureThreshold }}
{{- end }}
{{- end -}}

{{/* Whether a server has a port that serves only health: "true" or empty. Argument: as dubstage.probes. */}}
{{- define "dubstage.hasHealthPort" -}}
{{- $tokens := ternary .values.tokensSecret .root.Values.global.auth.stagesTokenSecret (eq .component "gateway") -}}
{{- if or .root.Values.global.tls.enabled $tokens.name }}true{{ end -}}
{{- end -}}
