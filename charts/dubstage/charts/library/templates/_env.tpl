{{/* One environment variable. Argument: (list "NAME" value). */}}
{{- define "dubstage.variable" -}}
- name: {{ index . 0 }}
  value: {{ include "dubstage.text" (index . 1) | quote }}
{{- end -}}

{{/* Environment variables of every server. Argument: (dict "root" $ "component" … "values" values). */}}
{{- define "dubstage.commonEnv" -}}
{{- $global := .root.Values.global -}}
{{- $tls := "/etc/dubstage/tls" -}}
{{ include "dubstage.variable" (list "DUBSTAGE_HOST" .values.listenAddress) }}
{{ include "dubstage.variable" (list "DUBSTAGE_PORT" .values.port) }}
{{ include "dubstage.variable" (list "DUBSTAGE_METRICS_PORT" .values.metricsPort) }}
{{ include "dubstage.variable" (list "DUBSTAGE_DRAIN_GRACE_S" .values.drainGraceSeconds) }}
{{ include "dubstage.variable" (list "DUBSTAGE_LOG_LEVEL" $global.telemetry.logLevel) }}
{{ include "dubstage.variable" (list "DUBSTAGE_LOG_FORMAT" $global.telemetry.logFormat) }}
{{- if $global.telemetry.otlpEndpoint }}
{{ include "dubstage.variable" (list "DUBSTAGE_OTLP_ENDPOINT" $global.telemetry.otlpEndpoint) }}
{{- end }}
{{- if include "dubstage.hasHealthPort" . }}
{{ include "dubstage.variable" (list "DUBSTAGE_HEALTH_PORT" .values.healthPort) }}
{{- end }}
{{- if $global.tls.enabled }}
{{ include "dubstage.variable" (list "DUBSTAGE_TLS_CERTIFICATE_FILE" (printf "%s/tls.crt" $tls)) }}
{{ include "dubstage.variable" (list "DUBSTAGE_TLS_KEY_FILE" (printf "%s/tls.key" $tls)) }}
{{- end }}
{{- end -}}

{{/* Environment variables of the artefact store, for components that use the store. Argument: as dubstage.commonEnv. */}}
{{- define "dubstage.artefactEnv" -}}
{{- $artefacts := .root.Values.global.artefacts -}}
{{- if eq $artefacts.store "s3" }}
{{ include "dubstage.variable" (list "DUBSTAGE_ARTEFACTS_URL" $artefacts.s3.url) }}
{{- include "dubstage.s3Env" .root }}
{{- else }}
{{ include "dubstage.variable" (list "DUBSTAGE_ARTEFACTS_URL" "/data/artefacts") }}
{{- end }}
{{- end -}}

{{/* Environment variables of a caller of the stages: their addresses. Argument: (dict "root" $ "endpoints" values). */}}
{{- define "dubstage.endpointEnv" -}}
{{- range $stage := list "audio" "face" "motion" "texture" "render" }}
{{- $service := include "dubstage.endpointOf" (dict "root" $.root "component" $stage) }}
{{ include "dubstage.variable" (list (printf "DUBSTAGE_%s_ENDPOINT" (upper $stage)) (index $.endpoints $stage | default $service)) }}
{{- end }}
{{- end -}}

{{/* Environment variables of a caller of the stages: its certificate and its token. Argument: the root. */}}
{{- define "dubstage.callerEnv" -}}
{{- if .Values.global.tls.enabled }}
{{ include "dubstage.variable" (list "DUBSTAGE_STAGES_TLS" "true") }}
{{ include "dubstage.variable" (list "DUBSTAGE_STAGES_TLS_CA_FILE" "/etc/dubstage/tls/ca.crt") }}
{{ include "dubstage.variable" (list "DUBSTAGE_STAGES_TLS_CERTIFICATE_FILE" "/etc/dubstage/tls/tls.crt") }}
{{ include "dubstage.variable" (list "DUBSTAGE_STAGES_TLS_KEY_FILE" "/etc/dubstage/tls/tls.key") }}
{{- end }}
{{- if .Values.global.auth.stagesTokenSecret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_STAGES_TOKEN_FILE" "/etc/dubstage/stages-token/token") }}
{{- end }}
{{- end -}}

{{/* Environment variable with the url of the database. Argument: the values of the database. */}}
{{- define "dubstage.databaseEnv" -}}
{{- if .urlSecret.name }}
- name: DUBSTAGE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .urlSecret.name }}
      key: {{ .urlSecret.key }}
{{- else if .url }}
{{ include "dubstage.variable" (list "DUBSTAGE_DATABASE_URL" .url) }}
{{- end }}
{{- end -}}

{{/* Environment variables of what writes videos: their certificate and the time stamp authority. Argument: the root. */}}
{{- define "dubstage.provenanceEnv" -}}
{{- with .Values.global.provenance }}
{{- if .secret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROVENANCE_CERTIFICATE_FILE" "/etc/dubstage/provenance/chain.pem") }}
{{- if .signerCommand }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROVENANCE_SIGNER_COMMAND" .signerCommand) }}
{{ include "dubstage.variable" (list "DUBSTAGE_WATERMARK_KEY_FILE" "/etc/dubstage/provenance/watermark.key") }}
{{- else }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROVENANCE_KEY_FILE" "/etc/dubstage/provenance/key.pem") }}
{{- end }}
{{- end }}
{{- if .timeStampUrl }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROVENANCE_TIME_STAMP_URL" .timeStampUrl) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volume with the certificate of videos; empty: there is no Secret. Argument: the root. */}}
{{- define "dubstage.provenanceVolume" -}}
{{- with .Values.global.provenance.secret }}
{{- if .name }}
name: provenance
secret:
  secretName: {{ .name }}
  defaultMode: 0440
  items:
    - key: {{ .certificateKey }}
      path: chain.pem
    {{- if $.Values.global.provenance.signerCommand }}
    - key: {{ .watermarkKeyKey }}
      path: watermark.key
    {{- else }}
    - key: {{ .privateKeyKey }}
      path: key.pem
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Environment variables for S3. They have the names that AWS' own tools read. Argument: the root. */}}
{{- define "dubstage.s3Env" -}}
{{- $s3 := .Values.global.artefacts.s3 -}}
{{- if $s3.region }}
{{ include "dubstage.variable" (list "AWS_REGION" $s3.region) }}
{{ include "dubstage.variable" (list "AWS_DEFAULT_REGION" $s3.region) }}
{{- end }}
{{- if $s3.endpoint }}
{{ include "dubstage.variable" (list "AWS_ENDPOINT_URL" $s3.endpoint) }}
{{- end }}
{{- with $s3.credentialsSecret }}
{{- if .name }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- end -}}

{{/* 90 % of a quantity of memory, in bytes; empty if the suffix of the quantity is unknown. Argument: the quantity. */}}
{{- define "dubstage.mostOfMemory" -}}
{{- $text := include "dubstage.text" . -}}
{{- $factors := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $suffix := regexFind "[a-zA-Z]*$" $text -}}
{{- if hasKey $factors $suffix -}}
{{- mulf 0.9 (float64 (trimSuffix $suffix $text)) (index $factors $suffix) | floor | int64 -}}
{{- end -}}
{{- end -}}

{{/* One environment variable for each of the component's `settings`, then extraEnv. Argument: as dubstage.commonEnv. */}}
{{- define "dubstage.settingsEnv" -}}
{{- $limits := .values.resources.limits | default dict -}}
{{- if and (kindIs "invalid" (index .values.settings "max_memory_bytes")) $limits.memory }}
{{- with include "dubstage.mostOfMemory" $limits.memory }}
{{ include "dubstage.variable" (list "DUBSTAGE_MAX_MEMORY_BYTES" .) }}
{{- end }}
{{- end }}
{{- range $name, $value := .values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{ include "dubstage.variable" (list (printf "DUBSTAGE_%s" (upper $name)) $value) }}
{{- end }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Further environment variables of a stage: who may call the stage, and the folder of its models. Argument: as dubstage.commonEnv. */}}
{{- define "dubstage.stageEnv" -}}
{{- $global := .root.Values.global -}}
{{- if $global.tls.enabled }}
{{ include "dubstage.variable" (list "DUBSTAGE_TLS_CLIENT_CA_FILE" "/etc/dubstage/tls/ca.crt") }}
{{ include "dubstage.variable" (list "DUBSTAGE_REQUIRE_CLIENT_CERTIFICATE" "true") }}
{{- end }}
{{- if $global.auth.stagesTokenSecret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_AUTH_TOKEN_FILE" "/etc/dubstage/stages-token/token") }}
{{- end }}
{{- if ne .values.models.source "image" }}
{{ include "dubstage.variable" (list .values.modelVariable (printf "/models%s" .values.modelFile)) }}
{{- end }}
{{- end -}}
