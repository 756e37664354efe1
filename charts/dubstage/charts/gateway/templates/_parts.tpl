{{/* Parts of the gateway for the Deployment that all components share (library: dubstage.deployment). */}}
{{/* Not empty where every gateway has the same data folder. */}}
{{- define "gateway.sharesData" -}}
{{- if or (eq .type "claim") (and (eq .type "hostPath") (eq .accessMode "ReadWriteMany")) }}shared{{ end -}}
{{- end }}
{{- define "gateway.env" -}}
{{- $global := .root.Values.global -}}
{{- /* Gateways that share no folder need different paths: the database knows a job by the path of its folder. */}}
{{- $own := get (dict "emptyDir" (list "POD_NAME" "metadata.name") "hostPath" (list "NODE_NAME" "spec.nodeName")) .values.data.type }}
{{- if and (gt (int .values.replicas) 1) $own (not (include "gateway.sharesData" .values.data)) }}
- name: {{ first $own }}
  valueFrom:
    fieldRef:
      fieldPath: {{ last $own }}
{{ include "dubstage.variable" (list "DUBSTAGE_DATA_DIR" (printf "/data/gateway/$(%s)" (first $own))) }}
{{- else }}
{{ include "dubstage.variable" (list "DUBSTAGE_DATA_DIR" "/data/gateway") }}
{{- end }}
{{ include "dubstage.variable" (list "DUBSTAGE_MEDIA_DIR" "/data/media") }}
{{- if .values.httpPort }}
{{ include "dubstage.variable" (list "DUBSTAGE_HTTP_PORT" .values.httpPort) }}
{{- end }}
{{ include "dubstage.variable" (list "DUBSTAGE_REQUIRE_CONSENT" .values.requireConsent) }}
{{- if .values.consentKeysSecret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_CONSENT_KEYS" "/etc/dubstage/consent-keys") }}
{{- end }}
{{- if .values.signingKeySecret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_SIGNING_KEY_FILE" "/etc/dubstage/signing-key/signing.pem") }}
{{- end }}
{{- include "dubstage.endpointEnv" (dict "root" .root "endpoints" .values.endpoints) }}
{{- include "dubstage.artefactEnv" . }}
{{- include "dubstage.databaseEnv" .values.database }}
{{- include "dubstage.callerEnv" .root }}
{{- include "dubstage.provenanceEnv" .root }}
{{- if and $global.tls.enabled .values.requireClientCertificate }}
{{ include "dubstage.variable" (list "DUBSTAGE_TLS_CLIENT_CA_FILE" "/etc/dubstage/tls/ca.crt") }}
{{ include "dubstage.variable" (list "DUBSTAGE_REQUIRE_CLIENT_CERTIFICATE" "true") }}
{{- end }}
{{- if .values.tokensSecret.name }}
{{ include "dubstage.variable" (list "DUBSTAGE_AUTH_TOKEN_FILE" "/etc/dubstage/tokens/tokens") }}
{{- end }}
{{- with .values.proxySecret }}
{{- if .name }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROXY_USERS_FILE" "/etc/dubstage/proxy/users") }}
{{- if .secretKey }}
{{ include "dubstage.variable" (list "DUBSTAGE_PROXY_SECRET_FILE" "/etc/dubstage/proxy/secret") }}
{{- end }}
{{- end }}
{{- end }}
{{- if or .values.tenantLimits.every .values.tenantLimits.tenants }}
{{ include "dubstage.variable" (list "DUBSTAGE_TENANT_LIMITS_FILE" "/etc/dubstage/tenant-limits/limits.json") }}
{{- end }}
{{- if .values.batchesOnKubernetes }}
{{ include "dubstage.variable" (list "DUBSTAGE_BATCH_CONFIG_MAP" (include "dubstage.nameOf" (dict "root" .root "component" "batch"))) }}
{{- end }}
{{- end -}}

{{- define "gateway.mounts" -}}
- name: data
  mountPath: /data/gateway
- name: media
  mountPath: /data/media
{{- if .values.consentKeysSecret.name }}
- name: consent-keys
  mountPath: /etc/dubstage/consent-keys
  readOnly: true
{{- end }}
{{- if .values.signingKeySecret.name }}
- name: signing-key
  mountPath: /etc/dubstage/signing-key
  readOnly: true
{{- end }}
{{- if .values.tokensSecret.name }}
- name: tokens
  mountPath: /etc/dubstage/tokens
  readOnly: true
{{- end }}
{{- if .values.proxySecret.name }}
- name: proxy
  mountPath: /etc/dubstage/proxy
  readOnly: true
{{- end }}
{{- if or .values.tenantLimits.every .values.tenantLimits.tenants }}
- name: tenant-limits
  mountPath: /etc/dubstage/tenant-limits
  readOnly: true
{{- end }}
{{- if .root.Values.global.provenance.secret.name }}
- name: provenance
  mountPath: /etc/dubstage/provenance
  readOnly: true
{{- end }}
{{- if .values.batchesOnKubernetes }}
# The folder where clients of Kubernetes look for the credentials of their pod.
- name: kubernetes-api
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- end -}}

{{- define "gateway.volumes" -}}
{{- $name := include "dubstage.nameOf" . -}}
- name: data
  {{- include "dubstage.volumeSource" (dict "volume" .values.data "claim" (printf "%s-data" $name)) | nindent 2 }}
- name: media
  {{- include "dubstage.volumeSource" (dict "volume" .values.media "claim" (printf "%s-media" $name)) | nindent 2 }}
{{- with .values.consentKeysSecret }}
{{- if .name }}
- name: consent-keys
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .values.signingKeySecret }}
{{- if .name }}
- name: signing-key
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: signing.pem
{{- end }}
{{- end }}
{{- with .values.tokensSecret }}
{{- if .name }}
- name: tokens
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: tokens
{{- end }}
{{- end }}
{{- with .values.proxySecret }}
{{- if .name }}
- name: proxy
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .usersKey }}
        path: users
      {{- if .secretKey }}
      - key: {{ .secretKey }}
        path: secret
      {{- end }}
{{- end }}
{{- end }}
{{- if or .values.tenantLimits.every .values.tenantLimits.tenants }}
- name: tenant-limits
  configMap:
    name: {{ $name }}-tenant-limits
{{- end }}
{{- with include "dubstage.provenanceVolume" .root }}
- {{ . | trim | nindent 2 | trim }}
{{- end }}
{{- if .values.batchesOnKubernetes }}
# A token that expires, in this container only. automountServiceAccountToken would mount a token in every container of the pod.
- name: kubernetes-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
{{- end -}}

{{- define "gateway.sidecars" -}}{{- end -}}

{{- define "gateway.objects" -}}
{{- $name := include "dubstage.nameOf" . -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-metrics
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
    dubstage.io/metrics: "true"
spec:
  clusterIP: None
  # A gateway that waits for its stages is not ready, but already has metrics.
  publishNotReadyAddresses: true
  selector:
    {{- include "dubstage.selector" . | nindent 4 }}
  ports:
    - name: metrics
      port: {{ .values.metricsPort }}
      targetPort: metrics
{{- with .values.tenantLimits }}
{{- if or .every .tenants }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}-tenant-limits
  namespace: {{ $.root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" $ | nindent 4 }}
data:
  limits.json: {{ toJson . | quote }}
{{- end }}
{{- end }}
{{- range $kind := list "data" "media" }}
{{- $volume := index $.values $kind }}
{{- if and (eq $volume.type "claim") (not $volume.existingClaim) }}
---
{{ include "dubstage.claim" (dict "root" $.root "component" $.component "name" (printf "%s-%s" $name $kind) "volume" $volume) }}
{{- end }}
{{- end }}
{{- with .values.route }}
{{- if .enabled }}
{{- if not .parentRefs }}
{{- fail "gateway.route.parentRefs: the Gateway that the route belongs to, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- if not (or .grpcHost .httpHost) }}
{{- fail "gateway.route.grpcHost: a route needs the host name that callers use: set grpcHost, httpHost, or both" }}
{{- end }}
{{- if and .httpHost (not $.values.httpPort) }}
{{- fail "gateway.route.httpHost: the gateway serves no HTTP/JSON: set gateway.httpPort" }}
{{- end }}
{{- if eq .grpcHost .httpHost }}
{{- fail "gateway.route.httpHost: a listener accepts a GRPCRoute and an HTTPRoute for different host names alone: give another name than grpcHost" }}
{{- end }}
{{- range $kind, $host := dict "GRPCRoute" .grpcHost "HTTPRoute" .httpHost }}
{{- if $host }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  namespace: {{ $.root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" $ | nindent 4 }}
  {{- with $.values.route.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs:
    {{- toYaml $.values.route.parentRefs | nindent 4 }}
  hostnames: [{{ $host | quote }}]
  rules:
    - backendRefs:
        - name: {{ $name }}
          port: {{ ternary $.values.httpPort (include "dubstage.portOf" "gateway") (eq $kind "HTTPRoute") }}
      {{- if eq $kind "HTTPRoute" }}
      # A wait for a dub, progress, and a file last longer than the limits of most Gateways. "0s" is no limit.
      timeouts:
        request: {{ $.values.route.httpTimeout }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .values.ingress }}
{{- if .enabled }}
{{- if not .host }}
{{- fail "gateway.ingress.host: an Ingress needs the host name that browsers use" }}
{{- end }}
{{- if not $.values.httpPort }}
{{- fail "gateway.ingress: the gateway serves no pages and no HTTP/JSON: set gateway.httpPort" }}
{{- end }}
{{- if not $.values.tokensSecret.name }}
{{- fail "gateway.tokensSecret.name: without tokens, whoever reaches the Ingress could call the gateway" }}
{{- end }}
{{- if and $.values.proxySecret.name (not $.values.proxySecret.secretKey) }}
{{- fail "gateway.proxySecret.secretKey: an Ingress passes on the headers that users send: give the proxy a secret" }}
{{- end }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $name }}
  namespace: {{ $.root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" $ | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .tls.enabled }}
  tls:
    - hosts: [{{ .host | quote }}]
      {{- with .tls.secretName }}
      secretName: {{ . }}
      {{- end }}
  {{- end }}
  rules:
    - host: {{ .host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ $name }}
                port: {number: {{ $.values.httpPort }}}
{{- end }}
{{- end }}
{{- end -}}
