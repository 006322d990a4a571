{{/* Names, labels, and what follows from the catalog: how many pods each tier has, and with how many processors. */}}

{{- define "punctual.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 47 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 47 characters: KubeRay refuses a RayService with a longer name. */}}
{{- define "punctual.fullname" -}}
{{- $name := include "punctual.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "punctual.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "punctual.name" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "punctual.ours" . }}
{{- end -}}

{{/* What marks everything of this release, pods included; KubeRay keeps app.kubernetes.io/name of pods for itself. */}}
{{- define "punctual.ours" -}}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/part-of: punctual
{{- end -}}

{{- define "punctual.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "punctual.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "punctual.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The operator's own Secret with certificates, "" where the chart makes one; linkSecret is what it was called before. */}}
{{- define "punctual.ownTransportSecret" -}}
{{- .Values.transport.existingSecret | default (default dict .Values.linkSecret).existingSecret | default "" -}}
{{- end -}}

{{- define "punctual.transportSecret" -}}
{{- default (printf "%s-transport" (include "punctual.fullname" .)) (include "punctual.ownTransportSecret" .) -}}
{{- end -}}

{{- define "punctual.cacheClaim" -}}
{{- default (printf "%s-cache" (include "punctual.fullname" .)) .Values.cache.persistentVolumeClaim.existingClaim -}}
{{- end -}}

{{/*
The tiers that the catalog uses, as YAML: {tiers: [{name, cpus, pods, min, max}]}. A pod has room for one replica of
each checkpoint of its tier and for its share of the ingresses; as many pods as the checkpoint with the most replicas.
*/}}
{{- define "punctual.plan" -}}
{{- $ingress := default dict .Values.catalog.ingress -}}
{{- $scaled := .Values.autoscaler.enabled -}}
{{- $tiers := list -}}
{{- $all := 0 -}}
{{- range $name := list "realtime" "balanced" "quality" -}}
{{- $set := index $.Values.tiers $name -}}
{{- $cpus := 0.0 -}}{{- $least := 0 -}}{{- $most := 0 -}}
{{- range $.Values.catalog.checkpoints -}}
{{- if eq .tier $name -}}
{{- $scaling := default dict .autoscaling -}}
{{- $replicas := int (default 1 .replicas) -}}
{{- $cpus = addf $cpus (default 1 .cpus) -}}
{{- $least = max $least (int (default $replicas $scaling.min_replicas)) -}}
{{- $most = max $most (int (default $replicas $scaling.max_replicas)) -}}
{{- end -}}
{{- end -}}
{{- if $most -}}
{{- $max := int (default $most $set.maxPods) -}}
{{- $min := int (default (min $least $max) $set.minPods) -}}
{{- $pods := int (default (ternary $min $most $scaled) $set.pods) -}}
{{- $all = add $all $pods -}}
{{- $tiers = append $tiers (dict "name" $name "cpus" $cpus "pods" $pods "min" (ternary $min $pods $scaled) "max" (ternary $max $pods $scaled)) -}}
{{- end -}}
{{- end -}}
{{- $share := divf (default 1 $ingress.replicas) $all | ceil -}}
{{- $planned := list -}}
{{- range $tier := $tiers -}}
{{- $computed := addf $tier.cpus (mulf $share (default 1 $ingress.cpus)) | ceil -}}
{{- $cpus := int (default $computed (index $.Values.tiers $tier.name).cpus) -}}
{{- $planned = append $planned (merge (dict "cpus" $cpus) $tier) -}}
{{- end -}}
{{- dict "tiers" $planned "pods" $all | toYaml -}}
{{- end -}}
