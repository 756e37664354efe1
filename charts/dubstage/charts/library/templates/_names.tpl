{{/* Beginning of every object's name: the name of the release, then "dubstage" unless the name of the release contains the word. A release
     may have dots in its name, and a Service may not. */}}
{{- define "dubstage.base" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if .Values.global.nameOverride -}}
{{- .Values.global.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "dubstage" $release -}}
{{- $release | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-dubstage" $release | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of a component's objects. Argument: (dict "root" $ "component" "audio"). */}}
{{- define "dubstage.nameOf" -}}
{{- printf "%s-%s" (include "dubstage.base" .root) .component -}}
{{- end -}}

{{/* Labels for selectors. They never change between upgrades, because selectors are immutable. Arguments: as dubstage.nameOf. */}}
{{- define "dubstage.selector" -}}
app.kubernetes.io/name: dubstage
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of every object. Arguments: as dubstage.nameOf. */}}
{{- define "dubstage.labels" -}}
{{ include "dubstage.selector" . }}
app.kubernetes.io/part-of: dubstage
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "dubstage-%s" .root.Chart.Version }}
{{- end -}}

{{/* Name of a component's service account. Argument: (dict "root" $ "component" … "values" values). */}}
{{- define "dubstage.serviceAccountOf" -}}
{{- $account := .values.serviceAccount -}}
{{- $account.name | default (ternary (include "dubstage.nameOf" .) "default" $account.create) -}}
{{- end -}}

{{/* Full name of an image. Argument: (dict "root" $ "image" values). */}}
{{- define "dubstage.image" -}}
{{- $global := .root.Values.global.image -}}
{{- $name := .image.repository -}}
{{- if $global.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" $global.registry) $name }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default $global.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Name of the Secret with a component's certificate. Arguments: as dubstage.nameOf. */}}
{{- define "dubstage.tlsSecret" -}}
{{- $tls := .root.Values.global.tls -}}
{{- if eq $tls.source "secrets" -}}
{{- $found := index $tls.secrets .component | default $tls.secrets.all -}}
{{- if not $found }}{{ fail (printf "global.tls.secrets.%s: give the name of the Secret with the certificate of %s, or one name for all components in global.tls.secrets.all" .component .component) }}{{ end -}}
{{- $found -}}
{{- else -}}
{{- printf "%s-tls" (include "dubstage.nameOf" .) -}}
{{- end -}}
{{- end -}}

{{/* Name of the claim for the artefact volume. */}}
{{- define "dubstage.artefactClaim" -}}
{{- .Values.global.artefacts.volume.existingClaim | default (printf "%s-artefacts" (include "dubstage.base" .)) -}}
{{- end -}}
