{{/* What is the audio stage's own in the shared Deployment (library: dubstage.deployment). */}}
{{- define "audio.env" -}}{{ include "dubstage.stageEnv" . }}{{- end -}}
{{- define "audio.mounts" -}}{{- end -}}
{{- define "audio.volumes" -}}{{- end -}}
{{- define "audio.sidecars" -}}{{- end -}}
{{- define "audio.objects" -}}{{- end -}}
