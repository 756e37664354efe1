{{/* Parts of the render stage for the Deployment that all components share (library: dubstage.deployment): Triton as a sidecar. */}}
{{- define "render.env" -}}
{{ include "dubstage.stageEnv" . }}
{{- include "dubstage.artefactEnv" . }}
{{- with .values.triton }}
{{- if .enabled }}
{{ include "dubstage.variable" (list "DUBSTAGE_BACKEND" "triton") }}
{{ include "dubstage.variable" (list "DUBSTAGE_PRECISION" .precision) }}
{{ include "dubstage.variable" (list "DUBSTAGE_TRITON_URL" "localhost:8001") }}
{{ include "dubstage.variable" (list "DUBSTAGE_TRITON_SHARED_MEMORY" .sharedMemory.enabled) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "render.mounts" -}}
{{- if and .values.triton.enabled .values.triton.sharedMemory.enabled }}
- name: shared-memory
  mountPath: /dev/shm
{{- end }}
{{- end -}}

{{- define "render.volumes" -}}
{{- with .values.triton }}
{{- if .enabled }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .sharedMemory.size }}
- name: triton-tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if ne .modelRepository.source "image" }}
- name: model-repository
  {{- $volume := dict "type" .modelRepository.source "existingClaim" .modelRepository.claimName "hostPath" .modelRepository.hostPath }}
  {{- include "dubstage.volumeSource" (dict "volume" $volume "claim" .modelRepository.claimName) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Triton listens on the loopback address of the pod, because every caller of Triton can load models. So the probes run inside the
     container. Only Triton's metrics port listens on all addresses. Triton ends after the render stage, because Triton still computes
     the last calls of the stage. */}}
{{- define "render.sidecars" -}}
{{- $port := int64 .values.port -}}
{{- $grace := add (int64 .values.drainGraceSeconds) 5 -}}
{{- with .values.triton }}
{{- if .enabled }}
- name: triton
  image: {{ include "dubstage.image" (dict "root" $.root "image" .image) }}
  imagePullPolicy: {{ $.root.Values.global.image.pullPolicy }}
  {{- with .command }}
  command:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .args }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: triton-metrics
      containerPort: 8002
  env:
    - name: HOME
      value: /tmp
    {{- with .extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- range $kind := list "startup" "readiness" "liveness" }}
  {{- $probe := index $.values.probes $kind }}
  {{ $kind }}Probe:
    exec:
      command:
        {{- toYaml $.values.triton.probeCommand | nindent 8 }}
        - http://127.0.0.1:8000/v2/health/live
    periodSeconds: {{ $probe.periodSeconds }}
    timeoutSeconds: {{ $probe.timeoutSeconds }}
    failureThreshold: {{ $probe.failureThreshold }}
  {{- end }}
  lifecycle:
    preStop:
      exec:
        command:
          - /bin/sh
          - -c
          - |
            for second in $(seq {{ $grace }}); do
              # 0A is the state LISTEN: the render stage still takes new calls, or finishes running calls.
              grep -qi ':{{ printf "%04X" $port }} [0-9A-F]*:0000 0A' /proc/net/tcp /proc/net/tcp6 2> /dev/null || exit 0
              sleep 1
            done
  resources:
    {{- include "dubstage.resources" (dict "resources" .resources "gpu" .gpu) | nindent 4 }}
  securityContext:
    {{- include "dubstage.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: triton-tmp
      mountPath: /tmp
    - name: shared-memory
      mountPath: /dev/shm
    {{- if ne .modelRepository.source "image" }}
    - name: model-repository
      mountPath: /models
      readOnly: true
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "render.objects" -}}
{{- if and .values.triton.enabled .root.Values.global.monitoring.serviceMonitor.enabled }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "dubstage.nameOf" . }}-triton-metrics
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
    dubstage.io/metrics: "true"
spec:
  clusterIP: None
  selector:
    {{- include "dubstage.selector" . | nindent 4 }}
  ports:
    - name: triton-metrics
      port: 8002
      targetPort: triton-metrics
{{- end }}
{{- end -}}
