{{/* Parts of the texture stage for the Deployment that all components share (library: dubstage.deployment). */}}
{{- define "texture.env" -}}{{ include "dubstage.stageEnv" . }}{{ include "dubstage.artefactEnv" . }}{{- end -}}
{{- define "texture.mounts" -}}{{- end -}}
{{- define "texture.volumes" -}}{{- end -}}
{{- define "texture.sidecars" -}}{{- end -}}
{{- define "texture.objects" -}}{{- end -}}
