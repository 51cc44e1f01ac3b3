{{/*
Pods that run the gateway's binary, each with a volume: the replicas that serve, and the workers. Both get the same settings.
It takes `root`, `name`, `component`, `serviceName`, `command`, `replicas` (0: somebody else says how many), `resources`,
`size` and `graceSeconds`.
*/}}
{{- define "bonito.workload" -}}
{{- with .root -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $.name }}
  labels:
    {{- include "bonito.labelsOf" $ | nindent 4 }}
spec:
  {{- with $.replicas }}
  replicas: {{ . }}
  {{- end }}
  serviceName: {{ $.serviceName }}
  # Replicas need nothing of each other: they start together, and are replaced one by one.
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  selector:
    matchLabels:
      {{- include "bonito.selectorOf" $ | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "bonito.labelsOf" $ | nindent 8 }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # Other configuration, other pods.
        bonito/config: {{ .Values.config | sha256sum }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "bonito.serviceAccountName" . }}
      automountServiceAccountToken: {{ include "bonito.needsToken" . }}
      # Kubernetes' own variables about services begin as ours do.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $.graceSeconds }}
      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.podSecurityContext | nindent 8 }}
      containers:
        - name: bonito
          image: {{ include "bonito.image" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args: [{{ $.command }}]
          securityContext:
            {{- toYaml .Values.securityContext | nindent 12 }}
          ports:
            {{- if eq $.component "gateway" }}
            - name: api
              containerPort: {{ .Values.ports.api }}
            {{- end }}
            - name: operations
              containerPort: {{ .Values.ports.operations }}
          env:
            - name: BONITO_SERVER_LISTEN
              value: "0.0.0.0:{{ .Values.ports.api }}"
            - name: BONITO_OPERATIONS_LISTEN
              value: "0.0.0.0:{{ .Values.ports.operations }}"
            - name: BONITO_DATA_DIR
              value: /var/lib/bonito
            - name: BONITO_SERVER_SHUTDOWN_NOTICE_MS
              value: {{ mul .Values.shutdown.noticeSeconds 1000 | quote }}
            - name: BONITO_SERVER_SHUTDOWN_GRACE_MS
              value: {{ mul .Values.shutdown.graceSeconds 1000 | quote }}
            - name: BONITO_TELEMETRY_LOG_FORMAT
              value: json
            {{- if .Values.workers.enabled }}
            - name: BONITO_JOBS_IN_SERVE
              value: "false"
            - name: BONITO_JOBS_DRAIN_MS
              value: {{ mul .Values.workers.drainSeconds 1000 | quote }}
            {{- end }}
            {{- if .Values.config }}
            - name: BONITO_CONFIG
              value: /etc/bonito/bonito.toml
            {{- end }}
            {{- with .Values.publicUrl }}
            - name: BONITO_SERVER_PUBLIC_URL
              value: {{ . | quote }}
            {{- end }}
            {{- with .Values.trustedProxies }}
            - name: BONITO_SERVER_TRUSTED_PROXIES
              value: {{ . | quote }}
            {{- end }}
            {{- if .Values.masterKey.existingSecret }}
            - name: BONITO_MASTER_KEY
              valueFrom:
                secretKeyRef:
                  name: {{ .Values.masterKey.existingSecret }}
                  key: {{ .Values.masterKey.key }}
            {{- end }}
            {{- include "bonito.databaseEnv" . | nindent 12 }}
            {{- if .Values.redis.existingSecret }}
            - name: REDIS_URL
              valueFrom:
                secretKeyRef:
                  name: {{ .Values.redis.existingSecret }}
                  key: {{ .Values.redis.key }}
            {{- end }}
            {{- if .Values.vault.address }}
            - name: VAULT_ADDR
              value: {{ .Values.vault.address | quote }}
            - name: BONITO_VAULT_AUTH
              value: {{ .Values.vault.auth }}
            - name: BONITO_VAULT_MOUNTS
              value: {{ .Values.vault.mounts | quote }}
            {{- with .Values.vault.namespace }}
            - name: VAULT_NAMESPACE
              value: {{ . | quote }}
            {{- end }}
            {{- with .Values.vault.authMount }}
            - name: BONITO_VAULT_AUTH_MOUNT
              value: {{ . | quote }}
            {{- end }}
            {{- if eq .Values.vault.auth "kubernetes" }}
            - name: BONITO_VAULT_KUBERNETES_ROLE
              value: {{ .Values.vault.kubernetesRole | quote }}
            {{- end }}
            {{- if eq .Values.vault.auth "approle" }}
            - name: VAULT_ROLE_ID
              value: {{ .Values.vault.roleId | quote }}
            {{- end }}
            {{- with .Values.vault.masterKeyPath }}
            - name: BONITO_VAULT_MASTER_KEY_PATH
              value: {{ . | quote }}
            {{- end }}
            {{- if .Values.vault.caConfigMap }}
            - name: VAULT_CACERT
              value: /etc/bonito-vault/{{ .Values.vault.caKey }}
            {{- end }}
            {{- end }}
            {{- include "bonito.settingsEnv" . | nindent 12 }}
            {{- with .Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- if or .Values.providers.existingSecret .Values.vault.existingSecret .Values.extraEnvFrom }}
          envFrom:
            {{- with .Values.providers.existingSecret }}
            - secretRef:
                name: {{ . }}
            {{- end }}
            {{- with .Values.vault.existingSecret }}
            - secretRef:
                name: {{ . }}
            {{- end }}
            {{- with .Values.extraEnvFrom }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          # A start reads the journal before it listens, which takes a while after a long outage of the database.
          startupProbe:
            httpGet:
              path: /livez
              port: operations
            periodSeconds: 2
            failureThreshold: 150
          livenessProbe:
            httpGet:
              path: /livez
              port: operations
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet:
              path: /readyz
              port: operations
            # Looking at the database takes a second at most.
            periodSeconds: 3
            timeoutSeconds: 3
            failureThreshold: 1
          resources:
            {{- toYaml $.resources | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /var/lib/bonito
            - name: tmp
              mountPath: /tmp
            {{- if .Values.config }}
            - name: config
              mountPath: /etc/bonito
              readOnly: true
            {{- end }}
            {{- if and .Values.vault.address .Values.vault.caConfigMap }}
            - name: vault-ca
              mountPath: /etc/bonito-vault
              readOnly: true
            {{- end }}
            {{- with .Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- if .Values.config }}
        - name: config
          configMap:
            name: {{ include "bonito.fullname" . }}
        {{- end }}
        {{- if and .Values.vault.address .Values.vault.caConfigMap }}
        - name: vault-ca
          configMap:
            name: {{ .Values.vault.caConfigMap }}
        {{- end }}
        {{- with .Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- if .Values.topologySpreadConstraints }}
        {{- toYaml .Values.topologySpreadConstraints | nindent 8 }}
        {{- else }}
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "bonito.selectorOf" $ | nindent 14 }}
        {{- end }}
        {{- end }}
  persistentVolumeClaimRetentionPolicy:
    whenScaled: {{ .Values.persistence.whenScaled }}
    whenDeleted: {{ .Values.persistence.whenDeleted }}
  volumeClaimTemplates:
    - metadata:
        name: data
        {{- with .Values.persistence.annotations }}
        annotations:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      spec:
        accessModes:
          {{- toYaml .Values.persistence.accessModes | nindent 10 }}
        {{- with .Values.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $.size }}
{{- end }}
{{- end }}
