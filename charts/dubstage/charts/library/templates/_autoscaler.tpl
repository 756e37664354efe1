{{/* Autoscaling: none, a HorizontalPodAutoscaler, or KEDA; of a stage by the length of its queue, of the gateway by its filled slots. */}}
{{- define "dubstage.autoscaler" -}}
{{- $scaling := .values.autoscaling -}}
{{- if gt (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas) }}
{{- fail (printf "%s.autoscaling: minReplicas (%d) is over maxReplicas (%d)" .component (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) }}
{{- end }}
{{- $gateways := eq .component "gateway" -}}
{{- $metric := ternary "dubstage_gateway_load" "dubstage_queue_to_compute_ratio" $gateways -}}
{{- $threshold := include "dubstage.text" (ternary $scaling.load $scaling.queueToCompute $gateways) | quote -}}
{{- if and $gateways (ne $scaling.type "none") (lt (int64 $scaling.minReplicas) 1) }}
{{- fail "gateway.autoscaling.minReplicas: calls need at least 1 gateway" }}
{{- end }}
{{- if eq $scaling.type "hpa" }}
{{- if lt (int64 $scaling.minReplicas) 1 }}
{{- fail (printf "%s.autoscaling.minReplicas: a HorizontalPodAutoscaler keeps at least 1 replica; use autoscaling.type: keda to scale to 0" .component) }}
{{- end }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "dubstage.nameOf" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Pods
      pods:
        metric:
          name: {{ $metric }}
        target:
          type: AverageValue
          averageValue: {{ $threshold }}
  behavior:
    {{- toYaml $scaling.behavior | nindent 4 }}
{{- else if eq $scaling.type "keda" }}
{{- $namespace := .root.Release.Namespace -}}
{{- $keda := $scaling.keda -}}
{{- $service := printf "%s%s" (include "dubstage.nameOf" .) (ternary "-metrics" "" $gateways) -}}
{{- $own := printf `{namespace=%q,service=%q}` $namespace $service -}}
{{- $gateway := printf `{namespace=%q,service="%s-metrics"}` $namespace (include "dubstage.nameOf" (dict "root" .root "component" "gateway")) -}}
{{- $work := printf `{namespace=%q,service="%s-metrics",stage=%q}` $namespace (include "dubstage.nameOf" (dict "root" .root "component" "gateway")) .component -}}
{{- /* Calls of the gateway that are no operations and use this stage. */ -}}
{{- $calls := printf `{namespace=%q,service="%s-metrics",rpc=~".+/%s"}` $namespace (include "dubstage.nameOf" (dict "root" .root "component" "gateway")) (ternary "EstimateDub" "Live" (eq .component "face")) }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "dubstage.nameOf" . }}
  namespace: {{ $namespace }}
  labels:
    {{- include "dubstage.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "dubstage.nameOf" . }}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  pollingInterval: {{ $keda.pollingIntervalSeconds }}
  cooldownPeriod: {{ $keda.cooldownSeconds }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml $scaling.behavior | nindent 8 }}
  triggers:
    - type: prometheus
      name: queue
      metricType: AverageValue
      metadata:
        serverAddress: {{ required "autoscaling.keda.prometheusAddress: give the address of Prometheus for KEDA, such as http://prometheus.monitoring:9090" $keda.prometheusAddress | quote }}
        query: {{ printf "sum(%s%s) or vector(0)" $metric $own | quote }}
        threshold: {{ $threshold }}
    {{- if not $gateways }}
    # A stage without replicas has no queue. KEDA starts the stage while the gateway has work that calls the stage, or waits for its
    # stages. Calls that look at dubs and batches start none.
    - type: prometheus
      name: work
      metricType: AverageValue
      metadata:
        serverAddress: {{ $keda.prometheusAddress | quote }}
        query: {{ printf "clamp_max(sum(dubstage_stage_operations%s) + sum(dubstage_rpcs_in_flight%s or dubstage_stage_operations%s * 0) + sum(1 - dubstage_serving%s), 1) or vector(0)" $work $calls $work $gateway | quote }}
        threshold: "1"
    {{- end }}
{{- end }}
{{- end -}}

{{/* Most gateways that run at the same time. Argument: values of the gateway. */}}
{{- define "dubstage.mostGateways" -}}
{{- ternary (.replicas | default 0) .autoscaling.maxReplicas (eq .autoscaling.type "none") | int -}}
{{- end -}}

{{/* Whether KEDA may take a stage to 0 replicas, seen from the umbrella chart: "true" or empty. Argument: (dict "root" $ "component" …). */}}
{{- define "dubstage.mayRest" -}}
{{- $scaling := deepCopy .root.Values.global.defaults.autoscaling -}}
{{- include "dubstage.mergeInto" (dict "dst" $scaling "src" ((index .root.Values .component).autoscaling | default dict)) -}}
{{- if and (eq $scaling.type "keda") (eq (int $scaling.minReplicas) 0) }}true{{ end -}}
{{- end -}}
