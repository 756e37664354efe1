{{/* Writes src over dst, key by key and in place; unlike Sprig's mergeOverwrite it also writes false, 0 and "". */}}
{{- define "dubstage.mergeInto" -}}
{{- range $key, $value := .src -}}
{{- if and (kindIs "map" $value) (kindIs "map" (index $.dst $key)) -}}
{{- include "dubstage.mergeInto" (dict "dst" (index $.dst $key) "src" $value) -}}
{{- else -}}
{{- $_ := set $.dst $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A component's values: global.defaults, and over them its own. YAML. */}}
{{- define "dubstage.values" -}}
{{- $values := deepCopy .Values.global.defaults -}}
{{- include "dubstage.mergeInto" (dict "dst" $values "src" (omit .Values "global")) -}}
{{- toYaml $values -}}
{{- end -}}

{{/* A scalar as an environment variable has it: Helm's numbers are floats, and 2.68435456e+08 is no integer to a service. */}}
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

{{/* A claim that stays when the release goes. Argument: (dict "root" $ "component" … "name" … "volume" values). */}}
{{- define "dubstage.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
  annotations:
    # What people entrusted to the service is not deleted by `helm uninstall`: delete the claim yourself.
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
