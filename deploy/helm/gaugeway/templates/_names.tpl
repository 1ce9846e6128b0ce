{{- define "gaugeway.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gaugeway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gaugeway.labels" -}}
{{ include "gaugeway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A ledger file has one writer: more pods need a ledger that they share. */}}
{{- define "gaugeway.check" -}}
{{- if and (not .Values.ledger.shared) (or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1)) -}}
{{- fail "several pods need one ledger: set ledger.postgres in the configuration, and ledger.shared=true" -}}
{{- end -}}
{{- end -}}

{{- define "gaugeway.volume" -}}
{{- and (not .Values.ledger.shared) .Values.ledger.persistence.enabled -}}
{{- end -}}
