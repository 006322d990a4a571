{{/*
The Serve config: one application, built by deployments/serve/kubernetes.py from the mounted catalog. No `revision` of the
catalog: a changed one makes a new cluster, whose pods mount it, while those of the old may not have it yet.
*/}}
{{- define "punctual.serveConfig" -}}
proxy_location: Disabled # the ingresses listen themselves
applications:
  - name: punctual
    route_prefix: null
    import_path: deployments.serve.kubernetes:build
    args:
      catalog: /etc/punctual/catalog.yaml
      cache: {{ include "punctual.cache" . }}
      transport_certificates: /etc/punctual-transport
      host: 0.0.0.0
      port: {{ .Values.http.port }}
      ingresses: {{ include "punctual.ingresses" . }}
      access_log: {{ .Values.accessLog | quote }}
      tier_resources: true
{{- end -}}

{{/* One ingress in each pod, or more if the catalog says so: a pod without one is never ready. */}}
{{- define "punctual.ingresses" -}}
{{- max (default 1 (default dict .Values.catalog.ingress).replicas) (include "punctual.plan" . | fromYaml).pods -}}
{{- end -}}

{{/* Where the variants lie: in the volume, or where the Dockerfile has put those that the image was baked with. */}}
{{- define "punctual.cache" -}}
{{- ternary "/opt/punctual/variants" "/var/lib/punctual" (eq .Values.cache.kind "image") -}}
{{- end -}}
