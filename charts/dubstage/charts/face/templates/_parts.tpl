{{/* What is the face stage's own in the shared Deployment (library: dubstage.deployment). */}}
{{- define "face.env" -}}{{ include "dubstage.stageEnv" . }}{{ include "dubstage.artefactEnv" . }}{{- end -}}
{{- define "face.mounts" -}}{{- end -}}
{{- define "face.volumes" -}}{{- end -}}
{{- define "face.sidecars" -}}{{- end -}}
{{- define "face.objects" -}}{{- end -}}
