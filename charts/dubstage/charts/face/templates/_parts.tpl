{{/* Parts of the face stage for the Deployment that all components share (library: dubstage.deployment). */}}
{{- define "face.env" -}}{{ include "dubstage.stageEnv" . }}{{ include "dubstage.artefactEnv" . }}{{- end -}}
{{- define "face.mounts" -}}{{- end -}}
{{- define "face.volumes" -}}{{- end -}}
{{- define "face.sidecars" -}}{{- end -}}
{{- define "face.objects" -}}{{- end -}}
