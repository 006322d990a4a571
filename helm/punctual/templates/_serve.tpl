{{/*
The Serve config: one application, built by deployments/serve/kubernetes.py from the mounted catalog. No `revision` of the
catalog: a changed one makes a new cluster, whose pods mount it, while those of the old may not have it yet.
*/}}
{{- define "punctual.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: {{ .Values.http.port }}
applications:
  - name: punctual
    route_prefix: /
    import_path: deployments.serve.kubernetes:build
    args:
      catalog: /etc/punctual/catalog.yaml
      cache: {{ include "punctual.cache" . }}
      transport_certificates: /etc/punctual-transport
      access_log: {{ .Values.accessLog | quote }}
      tier_resources: true
{{- end -}}

{{/* Where the variants lie: in the volume, or where the Dockerfile has put those that the image was baked with. */}}
{{- define "punctual.cache" -}}
{{- ternary "/opt/punctual/variants" "/var/lib/punctual" (eq .Values.cache.kind "image") -}}
{{- end -}}
