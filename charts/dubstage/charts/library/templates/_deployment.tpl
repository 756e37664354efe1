{{/* The Deployment of a component. Its chart defines "<chart>.env", "<chart>.mounts", "<chart>.volumes" and "<chart>.sidecars". */}}
{{- define "dubstage.deployment" -}}
{{- $own := printf "%s.%%s" .component -}}
{{- $claims := .root.Values.global.image.pullSecrets -}}
{{- /* A single gateway has no other that could take its calls meanwhile. */}}
{{- $leaves := ternary (int64 .values.preStopSeconds) 0 (and (eq .component "gateway") (gt (int .values.replicas) 1)) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
spec:
  {{- if eq .values.autoscaling.type "none" }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  progressDeadlineSeconds: {{ .values.progressDeadlineSeconds }}
  strategy:
    {{- /* Kubernetes refuses rollingUpdate beside the type Recreate. */}}
    {{- toYaml (ternary (omit .values.strategy "rollingUpdate") .values.strategy (eq .values.strategy.type "Recreate")) | nindent 4 }}
  selector:
    matchLabels:
      {{- include "dubstage.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "dubstage.labels" . | nindent 8 }}
        {{- if include "dubstage.mountsArtefacts" . }}
        dubstage.io/artefact-volume: "true"
        {{- end }}
        {{- if eq .component "gateway" }}
        dubstage.io/calls-stages: "true"
        {{- end }}
        {{- with .values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "dubstage.serviceAccountOf" . }}
      automountServiceAccountToken: false
      # Without this line, a Service with the name dubstage would set DUBSTAGE_PORT to tcp://….
      enableServiceLinks: false
      {{- if .values.hostNetwork }}
      hostNetwork: true
      {{- end }}
      terminationGracePeriodSeconds: {{ add (int64 .values.drainGraceSeconds) $leaves 15 }}
      {{- with $claims }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        {{- range $name, $id := .values.securityContext }}
        {{- if not (kindIs "invalid" $id) }}
        {{ $name }}: {{ include "dubstage.text" $id }}
        {{- end }}
        {{- end }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      {{- include "dubstage.placement" . | trim | nindent 6 }}
      {{- if eq .values.models.source "objectStore" }}
      initContainers:
        {{- include "dubstage.fetchModels" . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "dubstage.image" (dict "root" .root "image" .values.image) }}
          imagePullPolicy: {{ .root.Values.global.image.pullPolicy }}
          ports:
            - name: grpc
              containerPort: {{ .values.port }}
            - name: metrics
              containerPort: {{ .values.metricsPort }}
            {{- if .values.httpPort }}
            - name: http
              containerPort: {{ .values.httpPort }}
            {{- end }}
            {{- if include "dubstage.hasHealthPort" . }}
            - name: health
              containerPort: {{ .values.healthPort }}
            {{- end }}
          env:
            {{- include "dubstage.commonEnv" . | trim | nindent 12 }}
            {{- with include (printf $own "env") . | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with include "dubstage.settingsEnv" . | trim }}
            {{- . | nindent 12 }}
            {{- end }}
          {{- include "dubstage.probes" . | trim | nindent 10 }}
          {{- if $leaves }}
          # After SIGTERM the server refuses calls. Until then, all nodes learn that this pod has left the Service.
          lifecycle:
            preStop:
              exec:
                command: [sleep, {{ $leaves | quote }}]
          {{- end }}
          resources:
            {{- include "dubstage.resources" (dict "resources" .values.resources "gpu" .values.gpu) | nindent 12 }}
          securityContext:
            {{- include "dubstage.containerSecurity" . | nindent 12 }}
          volumeMounts:
            {{- include "dubstage.mounts" . | nindent 12 }}
            {{- with include (printf $own "mounts") . | trim }}
            {{- . | nindent 12 }}
            {{- end }}
        {{- with include (printf $own "sidecars") . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "dubstage.volumes" . | nindent 8 }}
        {{- with include (printf $own "volumes") . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end -}}
