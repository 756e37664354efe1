{{/* What is the motion stage's own in the shared Deployment (library: dubstage.deployment). */}}
{{- define "motion.env" -}}{{ include "dubstage.stageEnv" . }}{{ include "dubstage.artefactEnv" . }}{{- end -}}
{{- define "motion.mounts" -}}{{- end -}}
{{- define "motion.volumes" -}}{{- end -}}
{{- define "motion.sidecars" -}}{{- end -}}
{{- define "motion.objects" -}}{{- end -}}
