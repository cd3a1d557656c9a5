{{- define "operator.name" -}}{{ .Values.nameOverride }}{{- end }}

{{/* Of what lies in no namespace: two releases may be in one cluster. */}}
{{- define "operator.clusterName" -}}{{ include "operator.name" . }}.{{ .Release.Namespace }}{{- end }}

{{- define "operator.account" -}}
{{ .Values.serviceAccount.name | default (ternary (include "operator.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "operator.image" -}}
{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "operator.certificateSecret" -}}{{ include "operator.name" . }}-tls{{- end }}

{{- define "operator.serves" -}}
{{ if or .Values.webhook.enabled .Values.progress.enabled }}yes{{ end }}
{{- end }}

{{- define "operator.selfManaged" -}}
{{ if and (include "operator.serves" .) (eq .Values.webhook.certificates.source "SelfManaged") }}yes{{ end }}
{{- end }}

{{- define "operator.certManaged" -}}
{{ if and (include "operator.serves" .) (eq .Values.webhook.certificates.source "CertManager") }}yes{{ end }}
{{- end }}

{{- define "operator.watched" -}}
{{ join "," (sortAlpha .Values.watchNamespaces) | default "*" }}
{{- end }}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "operator.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
