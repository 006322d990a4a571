{{/* What head and workers have in common: each is given a dict with `root`, the template's own context. */}}

{{/* Ray's switches as `cluster_environment` of deployments/serve/environment.py has them, which says why; a test compares. */}}
{{- define "punctual.env" -}}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_ENABLE_DIRECT_INGRESS, value: "0"}
- {name: RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE, value: "1"}
- {name: RAY_SERVE_CONTROL_LOOP_INTERVAL_S, value: "0.3"}
- {name: RAY_SERVE_METRICS_EXPORT_INTERVAL_MS, value: "0"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_enable_metrics_collection, value: "0"}
- {name: ORT_DISABLE_TELEMETRY, value: "1"}
- {name: RAY_worker_niceness, value: "0"}
- {name: HOME, value: /tmp} # the only place to write to
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "punctual.podAnnotations" -}}
# A new catalog makes a new cluster: KubeRay compares pod templates.
checksum/catalog: {{ toYaml .root.Values.catalog | sha256sum }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "punctual.podLabels" -}}
{{ include "punctual.ours" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "punctual.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: catalog, mountPath: /etc/punctual, readOnly: true}
- {name: transport, mountPath: /etc/punctual-transport, readOnly: true}
{{- if ne .root.Values.cache.kind "image" }}
- {name: cache, mountPath: /var/lib/punctual}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "punctual.volumes" -}}
{{- with .root.Values -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .tmpSizeLimit }}}
- name: catalog
  configMap: {name: {{ include "punctual.fullname" $.root }}-catalog}
- name: transport # a folder, not a subPath: what is renewed in the Secret is renewed here
  secret:
    secretName: {{ include "punctual.transportSecret" $.root }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}, {key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- if eq .cache.kind "emptyDir" }}
- name: cache
  emptyDir: {sizeLimit: {{ .cache.sizeLimit }}}
{{- else if eq .cache.kind "persistentVolumeClaim" }}
- name: cache
  persistentVolumeClaim: {claimName: {{ include "punctual.cacheClaim" $.root }}}
{{- end }}
{{- with .extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Makes the variants that the cache lacks. What the image was baked with is copied, never over what is there. */}}
{{- define "punctual.prepare" -}}
{{- if ne .root.Values.cache.kind "image" -}}
initContainers:
  - name: prepare
    image: {{ include "punctual.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [/bin/bash, -ec]
    args:
      - |
        cp -an /opt/punctual/variants/. /var/lib/punctual/ 2>/dev/null || true
        exec punctual prepare --catalog /etc/punctual/catalog.yaml --cache /var/lib/punctual
    env:
      {{- include "punctual.env" . | nindent 6 }}
    resources:
      {{- toYaml .root.Values.cache.prepare.resources | nindent 6 }}
    securityContext:
      {{- toYaml .root.Values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "punctual.volumeMounts" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The rest of a pod's specification. `.own` is what the head or the tier sets for itself. */}}
{{- define "punctual.podSettings" -}}
serviceAccountName: {{ include "punctual.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .root.Values.drain.deadlineSeconds .root.Values.drain.marginSeconds }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Ray's own health, of the agent that every node has; stated, since older KubeRay asks by wget, which slim images lack. */}}
{{- define "punctual.rayHealth" -}}
httpGet: {path: /api/healthz, port: 52365}
periodSeconds: 5
timeoutSeconds: 5
{{- end -}}

{{/* Ready once every checkpoint has served, then for as long as the pod's ingress takes requests. bash, since the image has no curl. */}}
{{- define "punctual.readyScript" -}}
answers() {
  exec 3<>/dev/tcp/127.0.0.1/{{ .Values.http.port }} || return 1
  printf 'GET %s HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n' "$1" >&3
  read -r _ status _ <&3
  [ "$status" = 200 ]
}
if [ -e /tmp/was-ready ]; then answers {{ .Values.probes.alivePath }}; else answers {{ .Values.probes.readyPath }} && touch /tmp/was-ready; fi
{{- end -}}

{{/*
Has Ray start this node's replicas elsewhere, and ends once those here are gone, or at the deadline.
Their titles are Ray's; the brackets keep the script from finding itself.
*/}}
{{- define "punctual.drainScript" -}}
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod ends" \
  --deadline-remaining-seconds {{ .Values.drain.deadlineSeconds }}
for _ in $(seq {{ .Values.drain.deadlineSeconds }}); do
  grep -qs 'ray::[S]erveReplica' /proc/[0-9]*/cmdline || break
  sleep 1
done
{{- end -}}
