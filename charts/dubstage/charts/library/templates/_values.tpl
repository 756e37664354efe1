{{/* Writes the keys of src over dst, in place. Unlike Sprig's mergeOverwrite, the template also writes false, 0 and "". */}}
{{- define "dubstage.mergeInto" -}}
{{- range $key, $value := .src -}}
{{- if and (kindIs "map" $value) (kindIs "map" (index $.dst $key)) -}}
{{- include "dubstage.mergeInto" (dict "dst" (index $.dst $key) "src" $value) -}}
{{- else -}}
{{- $_ := set $.dst $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values of a component as YAML: its own values, and global.defaults for values that the component does not set. */}}
{{- define "dubstage.values" -}}
{{- $values := deepCopy .Values.global.defaults -}}
{{- include "dubstage.mergeInto" (dict "dst" $values "src" (omit .Values "global")) -}}
{{- toYaml $values -}}
{{- end -}}

{{/* A scalar as the text of an environment variable. Helm's numbers are floats, and a server does not read 2.68435456e+08 as an integer. */}}
{{- define "dubstage.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . | toString -}}
{{- end -}}
{{- end -}}

{{/* Source of a volume. Argument: (dict "volume" values "claim" "name of the claim that the chart makes"). */}}
{{- define "dubstage.volumeSource" -}}
{{- if eq .volume.type "hostPath" -}}
hostPath:
  path: {{ required "hostPath: a volume of type hostPath needs a path" .volume.hostPath }}
  type: Directory
{{- else if eq .volume.type "emptyDir" -}}
emptyDir: {}
{{- else -}}
persistentVolumeClaim:
  claimName: {{ .volume.existingClaim | default .claim }}
{{- end -}}
{{- end -}}

{{/* Claim of a volume that stays when the release is removed. Argument: (dict "root" $ "component" … "name" … "volume" values). */}}
{{- define "dubstage.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
  annotations:
    # `helm uninstall` does not delete the data of users: delete the claim yourself.
    helm.sh/resource-policy: keep
spec:
  accessModes: [{{ .volume.accessMode }}]
  {{- if .volume.storageClassName }}
  storageClassName: {{ .volume.storageClassName }}
  {{- end }}
  resources:
    requests:
      storage: {{ .volume.size }}
{{- end -}}
