{{/* Parts of the audio stage for the Deployment that all components share (library: dubstage.deployment). */}}
{{- define "audio.env" -}}{{ include "dubstage.stageEnv" . }}{{- end -}}
{{- define "audio.mounts" -}}{{- end -}}
{{- define "audio.volumes" -}}{{- end -}}
{{- define "audio.sidecars" -}}{{- end -}}
{{- define "audio.objects" -}}{{- end -}}
