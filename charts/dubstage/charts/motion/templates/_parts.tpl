{{/* Parts of the motion stage for the Deployment that all components share (library: dubstage.deployment). */}}
{{- define "motion.env" -}}{{ include "dubstage.stageEnv" . }}{{ include "dubstage.artefactEnv" . }}{{- end -}}
{{- define "motion.mounts" -}}{{- end -}}
{{- define "motion.volumes" -}}{{- end -}}
{{- define "motion.sidecars" -}}{{- end -}}
{{- define "motion.objects" -}}{{- end -}}
