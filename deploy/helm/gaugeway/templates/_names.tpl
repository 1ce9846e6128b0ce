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

{{/* Whether the ledger is one that several processes can share. */}}
{{- define "gaugeway.shared" -}}
{{- if (.Values.config.ledger).postgres -}}true{{- end -}}
{{- end -}}

{{- define "gaugeway.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}true{{- end -}}
{{- end -}}

{{/* A ledger file has one writer: more pods or workers need a ledger that they share. */}}
{{- define "gaugeway.check" -}}
{{- if and (not (include "gaugeway.shared" .)) (or (include "gaugeway.several" .) (gt (int .Values.workers) 1)) -}}
{{- fail "several pods or workers need one ledger: set config.ledger.postgres, such as $LEDGER_URL with the variable in envFrom" -}}
{{- end -}}
{{- end -}}

{{- define "gaugeway.volume" -}}
{{- if and (not (include "gaugeway.shared" .)) .Values.ledger.persistence.enabled -}}true{{- end -}}
{{- end -}}
