{{/* Name of the gateway's service account. Argument: the root. */}}
{{- define "dubstage.gatewayAccount" -}}
{{- include "dubstage.accountIn" (dict "root" . "component" "gateway") -}}
{{- end -}}

{{/* Name of a component's service account, seen from the umbrella chart. Argument: (dict "root" $ "component" …). */}}
{{- define "dubstage.accountIn" -}}
{{- $account := deepCopy .root.Values.global.defaults.serviceAccount -}}
{{- include "dubstage.mergeInto" (dict "dst" $account "src" ((index .root.Values .component).serviceAccount | default dict)) -}}
{{- include "dubstage.serviceAccountOf" (dict "root" .root "component" .component "values" (dict "serviceAccount" $account)) -}}
{{- end -}}

{{/* Source of the gateway's media volume, for the workers of its batches. Empty: the gateway sends no batches, the volume has one node, or
     values mount another volume there. Argument: the root. */}}
{{- define "dubstage.sharedMedia" -}}
{{- $gateway := .Values.gateway -}}
{{- if and $gateway.enabled $gateway.batchesOnKubernetes (not (has "/data/media" (include "dubstage.workerMounts" . | fromYamlArray))) -}}
{{- $media := $gateway.media -}}
{{- if or (eq $media.type "hostPath") (and (eq $media.type "claim") (eq $media.accessMode "ReadWriteMany")) -}}
{{- $claim := printf "%s-media" (include "dubstage.nameOf" (dict "root" . "component" "gateway")) -}}
{{- include "dubstage.volumeSource" (dict "volume" $media "claim" $claim) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Folders where values mount volumes in the workers, as YAML. Argument: the root. */}}
{{- define "dubstage.workerMounts" -}}
{{- $paths := list -}}
{{- range .Values.batch.extraVolumeMounts }}{{ $paths = append $paths (trimSuffix "/" .mountPath) }}{{ end -}}
{{- toYaml $paths -}}
{{- end -}}
