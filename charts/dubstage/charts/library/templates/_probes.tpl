{{/*
The three probes. Startup: the models are loaded. Readiness: the stage serves. Liveness asks for the name "liveness", which a server
answers from its event loop however busy its workers are: it fails only where the process hangs. With TLS the kubelet, which knows
none in its gRPC probes, asks the port that serves health alone. Argument: (dict "root" $ "values" values).
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
      - services.common.health_check
      {{- if eq $kind "liveness" }}
      - --service=liveness
      {{- end }}
  {{- else }}
  grpc:
    port: {{ ternary $.values.healthPort $.values.port $.root.Values.global.tls.enabled }}
    service: {{ ternary "liveness" "" (eq $kind "liveness") | quote }}
  {{- end }}
  periodSeconds: {{ $probe.periodSeconds }}
  timeoutSeconds: {{ $probe.timeoutSeconds }}
  failureThreshold: {{ $probe.failureThreshold }}
{{- end }}
{{- end -}}
