{{/* Names. Kubernetes allows 63 characters; room is left for the suffixes. */}}
{{- define "offboard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "offboard.fullname" -}}
{{- $name := include "offboard.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "offboard.migration.fullname" -}}
{{- printf "%s-migrate" (include "offboard.fullname" .) }}
{{- end }}

{{/* Labels. The argument of these two is `dict "root" $ "component" "server"`. */}}
{{- define "offboard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "offboard.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "offboard.labels" -}}
{{ include "offboard.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: offboard
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "offboard.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "offboard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "offboard.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The migration runs before the release's account exists, so it gets one of its own that Helm removes afterwards. */}}
{{- define "offboard.migration.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- include "offboard.migration.fullname" . }}
{{- else }}
{{- include "offboard.serviceAccountName" . }}
{{- end }}
{{- end }}

{{/*
The variable with the database's URL. The argument is `dict "root" $ "made" NAME`, where NAME is the Secret that the chart makes when
there is no existing one.
*/}}
{{- define "offboard.databaseUrl" -}}
{{- $database := .root.Values.database -}}
- name: OFFBOARD_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ default .made $database.existingSecret }}
      key: {{ ternary $database.existingSecretKey "database-url" (ne $database.existingSecret "") }}
{{- end }}

{{/* How the process logs: the same for the service and the migration. */}}
{{- define "offboard.logging" -}}
- name: OFFBOARD_LOG_FORMAT
  value: {{ .Values.logging.format | quote }}
- name: OFFBOARD_LOG
  value: {{ .Values.logging.filter | quote }}
{{- end }}

{{/* The settings of the service that are not secret. */}}
{{- define "offboard.environment" -}}
- name: OFFBOARD_GRPC_ADDR
  value: 0.0.0.0:50051
- name: OFFBOARD_HTTP_ADDR
  value: 0.0.0.0:8080
- name: OFFBOARD_ADMIN_ADDR
  value: 0.0.0.0:9464
- name: OFFBOARD_ROLES
  value: {{ join "," .Values.roles | quote }}
- name: OFFBOARD_DRAIN_DELAY
  value: {{ .Values.drain.delaySeconds | int64 | quote }}
- name: OFFBOARD_DRAIN_TIMEOUT
  value: {{ .Values.drain.timeoutSeconds | int64 | quote }}
{{ include "offboard.logging" . }}
{{- with .Values.database.poolSize }}
- name: OFFBOARD_DB_POOL_SIZE
  value: {{ . | int64 | quote }}
{{- end }}
{{- with .Values.publicUrl }}
- name: OFFBOARD_PUBLIC_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.cors.allowedOrigins }}
- name: OFFBOARD_CORS_ORIGINS
  value: {{ join "," . | quote }}
{{- end }}
{{- $numbers := dict
      "OFFBOARD_MAX_BODY_BYTES" .Values.limits.maxBodyBytes
      "OFFBOARD_MAX_CONCURRENT_CALLS" .Values.limits.maxConcurrentCalls
      "OFFBOARD_RATE_LIMIT" .Values.limits.rateLimit
      "OFFBOARD_WRITE_RATE_LIMIT" .Values.limits.writeRateLimit
      "OFFBOARD_TASK_RATE_LIMIT" .Values.limits.taskRateLimit
      "OFFBOARD_STREAM_RATE_LIMIT" .Values.limits.streamRateLimit
      "OFFBOARD_REALM_RATE_LIMIT" .Values.limits.realmRateLimit
      "OFFBOARD_REALM_WRITE_RATE_LIMIT" .Values.limits.realmWriteRateLimit
      "OFFBOARD_REALM_TASK_RATE_LIMIT" .Values.limits.realmTaskRateLimit
      "OFFBOARD_REALM_STREAM_RATE_LIMIT" .Values.limits.realmStreamRateLimit
      "OFFBOARD_ADDRESS_RATE_LIMIT" .Values.limits.addressRateLimit
      "OFFBOARD_REALM_CONCURRENT_CALLS" .Values.shares.realmConcurrentCalls
      "OFFBOARD_KEY_CONCURRENT_CALLS" .Values.shares.keyConcurrentCalls
      "OFFBOARD_MAX_CONCURRENT_STREAMS" .Values.shares.maxConcurrentStreams
      "OFFBOARD_REALM_CONCURRENT_STREAMS" .Values.shares.realmConcurrentStreams
      "OFFBOARD_KEY_CONCURRENT_STREAMS" .Values.shares.keyConcurrentStreams
      "OFFBOARD_REALM_DB_CONNECTIONS" .Values.shares.realmDbConnections
      "OFFBOARD_SLOW_DB_CONNECTIONS" .Values.shares.slowDbConnections
      "OFFBOARD_MAX_CONNECTIONS" .Values.limits.maxConnections
      "OFFBOARD_MAX_CONNECTIONS_PER_ADDRESS" .Values.limits.maxConnectionsPerAddress
      "OFFBOARD_MAX_STREAMS_PER_CONNECTION" .Values.limits.maxStreamsPerConnection
      "OFFBOARD_IDEMPOTENCY_RECORDS" .Values.limits.idempotencyRecords
      "OFFBOARD_IDEMPOTENCY_BYTES" .Values.limits.idempotencyBytes
      "OFFBOARD_KEYS_PER_REALM" .Values.limits.keysPerRealm
      "OFFBOARD_MAX_TOKEN_BYTES" .Values.tokens.maxBytes
}}
{{- range $name, $number := $numbers }}
{{- if not (kindIs "invalid" $number) }}
- name: {{ $name }}
  value: {{ $number | int64 | quote }}
{{- end }}
{{- end }}
{{- with .Values.proxies }}
{{- with .trusted }}
- name: OFFBOARD_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .forwardedHeader }}
- name: OFFBOARD_FORWARDED_HEADER
  value: {{ . | quote }}
{{- end }}
{{- if .proxyProtocol }}
- name: OFFBOARD_PROXY_PROTOCOL
  value: "true"
{{- end }}
{{- end }}
{{- with .Values.reflection }}
- name: OFFBOARD_REFLECTION
  value: {{ . | quote }}
{{- end }}
{{- $seconds := dict
      "OFFBOARD_REQUEST_TIMEOUT" .Values.limits.requestTimeoutSeconds
      "OFFBOARD_STREAM_SILENCE_TIMEOUT" .Values.shares.streamSilenceTimeoutSeconds
      "OFFBOARD_HEAD_TIMEOUT" .Values.limits.headTimeoutSeconds
      "OFFBOARD_IDLE_TIMEOUT" .Values.limits.idleTimeoutSeconds
      "OFFBOARD_IDLE_TIMEOUT_WITHOUT_KEY" .Values.limits.idleTimeoutWithoutKeySeconds
      "OFFBOARD_JWKS_REFRESH" .Values.tokens.jwksRefreshSeconds
      "OFFBOARD_JWKS_REFETCH" .Values.tokens.jwksRefetchSeconds
      "OFFBOARD_JWKS_OUTAGE" .Values.tokens.jwksOutageSeconds
      "OFFBOARD_GRPC_KEEPALIVE_INTERVAL" .Values.grpc.keepaliveIntervalSeconds
      "OFFBOARD_GRPC_KEEPALIVE_TIMEOUT" .Values.grpc.keepaliveTimeoutSeconds
      "OFFBOARD_GRPC_MAX_CONNECTION_AGE" .Values.grpc.maxConnectionAgeSeconds
      "OFFBOARD_GRPC_MAX_CONNECTION_AGE_GRACE" .Values.grpc.maxConnectionAgeGraceSeconds
}}
{{- range $name, $number := $seconds }}
{{- if not (kindIs "invalid" $number) }}
- name: {{ $name }}
  value: {{ $number | toString | quote }}
{{- end }}
{{- end }}
{{- if or .Values.tokens.existingConfigMap .Values.tokens.existingSecret }}
- name: OFFBOARD_AUTH_FILE
  value: {{ printf "/etc/offboard/auth/%s" .Values.tokens.key | quote }}
{{- end }}
{{- with .Values.telemetry.otlpEndpoint }}
- name: OFFBOARD_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.bodies.memoryBytes }}
- name: OFFBOARD_BODY_MEMORY_BYTES
  value: {{ . | int64 | quote }}
{{- end }}
{{- with .Values.responses.memoryBytes }}
- name: OFFBOARD_RESPONSE_MEMORY_BYTES
  value: {{ . | int64 | quote }}
{{- end }}
{{- $bulk := .Values.bulkDelete }}
{{- with $bulk.workers }}
- name: OFFBOARD_BULK_WORKERS
  value: {{ . | int64 | quote }}
{{- end }}
{{- if not (kindIs "invalid" $bulk.idleWorkers) }}
- name: OFFBOARD_BULK_IDLE_WORKERS
  value: {{ $bulk.idleWorkers | int64 | quote }}
{{- end }}
{{- with $bulk.chunkTargetSeconds }}
- name: OFFBOARD_BULK_CHUNK_TARGET
  value: {{ . | toString | quote }}
{{- end }}
{{- with $bulk.chunkSize }}
- name: OFFBOARD_BULK_CHUNK_SIZE
  value: {{ . | int64 | quote }}
{{- end }}
{{- if not (kindIs "invalid" $bulk.turnSeconds) }}
- name: OFFBOARD_BULK_TURN
  value: {{ $bulk.turnSeconds | toString | quote }}
{{- end }}
{{- end }}

{{/* Where events are published to. The migration publishes nothing. */}}
{{- define "offboard.nats" -}}
{{- with .Values.nats }}
{{- if .existingSecret -}}
- name: OFFBOARD_NATS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .existingSecretKey }}
- name: OFFBOARD_NATS_SUBJECT_PREFIX
  value: {{ .subjectPrefix | quote }}
- name: OFFBOARD_NATS_STREAM
  value: {{ .stream | quote }}
- name: OFFBOARD_NATS_CREATE_STREAM
  value: {{ .createStream | quote }}
{{- if .credentialsKey }}
- name: OFFBOARD_NATS_CREDENTIALS_FILE
  value: /etc/nats/user.creds
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where mails are given to. The migration sends none. */}}
{{- define "offboard.mail" -}}
{{- with .Values.mail }}
{{- if .existingSecret -}}
- name: OFFBOARD_SMTP_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .existingSecretKey }}
- name: OFFBOARD_MAIL_FROM
  value: {{ .from | quote }}
- name: OFFBOARD_MAILS_PER_HOUR
  value: {{ .perHour | int64 | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What every pod shares: who it runs as, and that it gets neither a token nor the variables of other Services. */}}
{{- define "offboard.podSecurity" -}}
automountServiceAccountToken: false
{{- /* A Service named `offboard` would otherwise put OFFBOARD_PORT and its like into the environment, beside our own settings. */}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- range $field, $id := .Values.podSecurity }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $field }}: {{ int64 $id }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "offboard.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "offboard.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "offboard.volumeMounts" -}}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "offboard.volumes" -}}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Egress that the service and the migration both need: names, and the database. */}}
{{- define "offboard.egress" -}}
{{- with .Values.networkPolicy.egress.dns.peers }}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}
{{- with .Values.networkPolicy.egress.database }}
- to:
    {{- toYaml .peers | nindent 4 }}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The seconds that an orderly end may take, from the decision to end the pod to the last chunk. */}}
{{- define "offboard.drainSeconds" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.delaySeconds .Values.drain.timeoutSeconds }}
{{- end }}

{{/* 10 seconds on top of the drain are for closing the pool and for the kubelet itself. */}}
{{- define "offboard.gracePeriodSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add (include "offboard.drainSeconds" .) 10 }}
{{- else }}
{{- int64 .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
