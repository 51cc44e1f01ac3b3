{{/* Name of the chart, as a label. */}}
{{- define "bonito.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What objects are called. Kept short enough for what is put behind it. */}}
{{- define "bonito.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "bonito.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "bonito.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What finds the pods of one `component`. It never changes in the life of a release. */}}
{{- define "bonito.selectorOf" -}}
app.kubernetes.io/name: {{ include "bonito.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What finds the gateway's pods. */}}
{{- define "bonito.selector" -}}
{{ include "bonito.selectorOf" (dict "root" . "component" "gateway") }}
{{- end }}

{{/* Labels of what belongs to one `component`. */}}
{{- define "bonito.labelsOf" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "bonito.selectorOf" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Labels of everything but the workers, and the job, which is none of the gateway's pods. */}}
{{- define "bonito.labels" -}}
{{ include "bonito.labelsOf" (dict "root" . "component" "gateway") }}
{{- end }}

{{- define "bonito.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "bonito.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "bonito.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Whether Vault is told who we are by the service account's token, which is mounted for nothing else. */}}
{{- define "bonito.needsToken" -}}
{{- if and .Values.vault.address (eq .Values.vault.auth "kubernetes") }}true{{ else }}false{{ end }}
{{- end }}

{{/* What no schema can say: which values go together. */}}
{{- define "bonito.checks" -}}
{{- if .Values.database.embedded }}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- fail "database.embedded is SQLite in one replica's volume: set replicaCount to 1 and autoscaling.enabled to false, or name a Postgres in database.existingSecret" }}
{{- end }}
{{- if .Values.workers.enabled }}
{{- fail "workers.enabled needs Postgres: with database.embedded nobody but the one replica reaches its database" }}
{{- end }}
{{- if .Values.database.existingSecret }}
{{- fail "database.embedded and database.existingSecret exclude each other" }}
{{- end }}
{{- else if not .Values.database.existingSecret }}
{{- fail "database.existingSecret is needed: the name of a Secret with the address of Postgres (or database.embedded for one replica on SQLite)" }}
{{- end }}
{{- if and (not .Values.masterKey.existingSecret) (not .Values.vault.masterKeyPath) (not .Values.database.embedded) }}
{{- fail "masterKey.existingSecret or vault.masterKeyPath is needed: without the master key no key that was made can be recognised" }}
{{- end }}
{{- if and .Values.vault.masterKeyPath (not .Values.vault.address) }}
{{- fail "vault.masterKeyPath needs vault.address" }}
{{- end }}
{{- if .Values.vault.address }}
{{- if and (eq .Values.vault.auth "kubernetes") (not .Values.vault.kubernetesRole) }}
{{- fail "vault.kubernetesRole is needed where vault.auth is kubernetes" }}
{{- end }}
{{- if and (eq .Values.vault.auth "approle") (not .Values.vault.roleId) }}
{{- fail "vault.roleId is needed where vault.auth is approle" }}
{{- end }}
{{- if and (ne .Values.vault.auth "kubernetes") (not .Values.vault.existingSecret) }}
{{- fail "vault.existingSecret is needed: it holds VAULT_TOKEN or VAULT_SECRET_ID" }}
{{- end }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}
{{- end }}
{{- end }}

{{/* Where the database is: for the gateway and for the job. */}}
{{- define "bonito.databaseEnv" -}}
{{- if not .Values.database.embedded }}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
{{- end }}
{{- end }}

{{/* Single settings, as the variables they are called by. Numbers are whole, and JSON has made them fractions. */}}
{{- define "bonito.settingsEnv" -}}
{{- range $path, $value := .Values.settings }}
- name: {{ printf "BONITO_%s" ($path | replace "." "_" | upper) }}
  value: {{ if kindIs "float64" $value }}{{ int64 $value | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* Rules of network policies: who may reach operations. */}}
{{- define "bonito.operationsIngress" -}}
- ports:
    - protocol: TCP
      port: operations
  from:
    {{- if .Values.networkPolicy.operationsFrom }}
    {{- toYaml .Values.networkPolicy.operationsFrom | nindent 4 }}
    {{- else }}
    - podSelector: {}
    {{- end }}
{{- end }}

{{/* Rules of network policies: what may be asked. */}}
{{- define "bonito.egress" -}}
- ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- with .Values.networkPolicy.egressPorts }}
- ports:
    {{- range . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
