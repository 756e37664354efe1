{{/* Facts of a component that do not depend on the values, as YAML. Argument: name of the component. */}}
{{- define "dubstage.facts" -}}
{{- $facts := dict
  "gateway" (dict "port" 50050 "usesArtefacts" true "modelVariable" "" "modelFile" "")
  "audio" (dict "port" 50051 "usesArtefacts" false "modelVariable" "DUBSTAGE_AUDIO_WEIGHTS" "modelFile" "")
  "face" (dict "port" 50052 "usesArtefacts" true "modelVariable" "DUBSTAGE_MORPHABLE_MODELS" "modelFile" "")
  "motion" (dict "port" 50053 "usesArtefacts" true "modelVariable" "DUBSTAGE_MOTION_WEIGHTS" "modelFile" "")
  "texture" (dict "port" 50054 "usesArtefacts" true "modelVariable" "DUBSTAGE_TEXTURE_WEIGHTS" "modelFile" "/temporal_warp.onnx")
  "render" (dict "port" 50055 "usesArtefacts" true "modelVariable" "DUBSTAGE_RENDER_WEIGHTS" "modelFile" "")
-}}
{{- toYaml (index $facts .) -}}
{{- end -}}

{{/* Port that a component listens on. Argument: name of the component. */}}
{{- define "dubstage.portOf" -}}
{{- (include "dubstage.facts" . | fromYaml).port -}}
{{- end -}}

{{/* Address that callers of a component connect to. Arguments: as dubstage.nameOf. */}}
{{- define "dubstage.endpointOf" -}}
{{- printf "dns:///%s:%s" (include "dubstage.nameOf" .) (include "dubstage.portOf" .component) -}}
{{- end -}}
