{{/* Security context of a container: the restricted Pod Security Standard, and a read-only root file system. */}}
{{- define "dubstage.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Requests and limits of a container, with its GPU. Argument: (dict "resources" … "gpu" …). */}}
{{- define "dubstage.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpu.count) 0 -}}
{{- range $kind := list "requests" "limits" -}}
{{- $_ := set $resources $kind (merge (dict $.gpu.resource (toString (int $.gpu.count))) (index $resources $kind | default dict)) -}}
{{- end -}}
{{- end -}}
{{- $clean := dict -}}
{{- range $kind, $wanted := $resources -}}
{{- $kept := dict -}}
{{- range $name, $quantity := $wanted -}}
{{- if not (kindIs "invalid" $quantity) }}{{ $_ := set $kept $name (include "dubstage.text" $quantity) }}{{ end -}}
{{- end -}}
{{- $_ := set $clean $kind $kept -}}
{{- end -}}
{{- toYaml $clean -}}
{{- end -}}

{{/* Rules about the nodes of a pod. Argument: (dict "root" $ "component" … "values" values). */}}
{{- define "dubstage.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy (.values.affinity | default dict) }}
{{- if include "dubstage.sharesNode" . }}
{{- /* Only one node can mount a ReadWriteOnce volume. So all pods that mount the volume run on the same node. */}}
{{- $labels := dict "app.kubernetes.io/instance" .root.Release.Name "dubstage.io/artefact-volume" "true" }}
{{- $term := dict "labelSelector" (dict "matchLabels" $labels) "topologyKey" "kubernetes.io/hostname" }}
{{- $pod := deepCopy ($affinity.podAffinity | default dict) }}
{{- $terms := append ($pod.requiredDuringSchedulingIgnoredDuringExecution | default list) $term }}
{{- $_ := set $pod "requiredDuringSchedulingIgnoredDuringExecution" $terms }}
{{- $_ := set $affinity "podAffinity" $pod }}
{{- end }}
{{- if $affinity }}
affinity:
  {{- toYaml $affinity | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml (omit . "labelSelector") | nindent 4 }}
    labelSelector:
      {{- if .labelSelector }}
      {{- toYaml .labelSelector | nindent 6 }}
      {{- else }}
      matchLabels:
        {{- include "dubstage.selector" $ | nindent 8 }}
      {{- end }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* dubstage.mountsArtefacts: whether a component mounts the artefact volume. dubstage.sharesNode: whether the volume binds all its pods
     to one node. The answer is "true" or empty. */}}
{{- define "dubstage.mountsArtefacts" -}}
{{- if and .values.usesArtefacts (eq .root.Values.global.artefacts.store "volume") }}true{{ end -}}
{{- end -}}
{{- define "dubstage.sharesNode" -}}
{{- $volume := .root.Values.global.artefacts.volume -}}
{{- if and (include "dubstage.mountsArtefacts" .) (eq $volume.type "claim") (eq $volume.accessMode "ReadWriteOnce") }}true{{ end -}}
{{- end -}}

{{/* Volume mounts of a component's main container. */}}
{{- define "dubstage.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "dubstage.mountsArtefacts" . }}
- name: artefacts
  mountPath: /data/artefacts
{{- end }}
{{- if .root.Values.global.tls.enabled }}
- name: tls
  mountPath: /etc/dubstage/tls
  readOnly: true
{{- end }}
{{- if .root.Values.global.auth.stagesTokenSecret.name }}
- name: stages-token
  mountPath: /etc/dubstage/stages-token
  readOnly: true
{{- end }}
{{- if ne .values.models.source "image" }}
- name: models
  mountPath: /models
  readOnly: true
  {{- with .values.models.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes of a component's pod. */}}
{{- define "dubstage.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .values.tmpSize }}
{{- if include "dubstage.mountsArtefacts" . }}
- name: artefacts
  {{- $claim := include "dubstage.artefactClaim" .root }}
  {{- include "dubstage.volumeSource" (dict "volume" .root.Values.global.artefacts.volume "claim" $claim) | nindent 2 }}
{{- end }}
{{- if .root.Values.global.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "dubstage.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.global.auth.stagesTokenSecret }}
{{- if .name }}
- name: stages-token
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- end }}
{{- if eq .values.models.source "objectStore" }}
- name: models
  emptyDir:
    sizeLimit: {{ .values.models.size }}
{{- else if ne .values.models.source "image" }}
- name: models
  {{- $volume := dict "type" .values.models.source "existingClaim" .values.models.claimName "hostPath" .values.models.hostPath }}
  {{- include "dubstage.volumeSource" (dict "volume" $volume "claim" .values.models.claimName) | nindent 2 }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Init container that fetches models from an object store; only if models.source asks for it. */}}
{{- define "dubstage.fetchModels" -}}
- name: fetch-models
  image: {{ include "dubstage.image" (dict "root" .root "image" .values.image) }}
  imagePullPolicy: {{ .root.Values.global.image.pullPolicy }}
  command:
    - /opt/dubstage/bin/python
    - -c
    - |
      import sys
      from fsspec.core import url_to_fs
      files, root = url_to_fs(sys.argv[1])
      files.get(root.rstrip("/") + "/", "/models/", recursive=True)
    - {{ required "models.url: where the models lie, such as s3://bucket/models/render" .values.models.url | quote }}
  env:
    - name: HOME
      value: /tmp
    {{- include "dubstage.s3Env" .root | nindent 4 }}
  resources:
    {{- toYaml .values.resources | nindent 4 }}
  securityContext:
    {{- include "dubstage.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    - name: models
      mountPath: /models
{{- end -}}
