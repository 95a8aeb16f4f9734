{{/*
Faults that lie between values, which the schema cannot express in a sentence, or in values that must not be repeated. All of them are reported at
once.
*/}}
{{- define "offboard.validate" -}}
{{- $faults := list }}
{{- with .Values.database }}
{{- if and .url .existingSecret }}
{{- $faults = append $faults "database: give either `url` or `existingSecret`, not both" }}
{{- else if not (or .url .existingSecret) }}
{{- $faults = append $faults "database: give `url`, or `existingSecret` with the name of a Secret that contains it" }}
{{- end }}
{{- end }}
{{- if and .Values.database.url (not (regexMatch "^postgres(ql)?://." .Values.database.url)) }}
{{- $faults = append $faults "database.url: must begin with postgres:// or postgresql://" }}
{{- end }}
{{- if and .Values.nats.credentialsKey (not .Values.nats.existingSecret) }}
{{- $faults = append $faults "nats.credentialsKey: is a key of `existingSecret`, which is not given" }}
{{- end }}
{{- if and .Values.mail.existingSecret (not .Values.mail.from) }}
{{- $faults = append $faults "mail.from: must be given with `existingSecret`" }}
{{- else if and .Values.mail.from (not .Values.mail.existingSecret) }}
{{- $faults = append $faults "mail.from: needs `existingSecret`, with the URL of an SMTP server" }}
{{- end }}
{{- if and .Values.tokens.existingConfigMap .Values.tokens.existingSecret }}
{{- $faults = append $faults "tokens: give either `existingConfigMap` or `existingSecret`, not both" }}
{{- end }}
{{- if not .Values.proxies.trusted }}
{{- if .Values.proxies.proxyProtocol }}
{{- $faults = append $faults "proxies.proxyProtocol: needs `trusted`; nobody else is believed" }}
{{- end }}
{{- if .Values.proxies.forwardedHeader }}
{{- $faults = append $faults "proxies.forwardedHeader: needs `trusted`; nobody else is believed" }}
{{- end }}
{{- end }}
{{- with .Values.service }}
{{- if and .headless (or (ne (int64 .ports.grpc) 50051) (ne (int64 .ports.http) 8080)) }}
{{- $faults = append $faults "service.ports: a headless Service cannot map ports; they must be 50051 for grpc and 8080 for http" }}
{{- end }}
{{- end }}
{{- $drain := int64 (include "offboard.drainSeconds" .) }}
{{- $grace := int64 (include "offboard.gracePeriodSeconds" .) }}
{{- if le $grace $drain }}
{{- $faults = append $faults (printf "terminationGracePeriodSeconds: %d is too short; preStopSeconds, delaySeconds and timeoutSeconds of `drain` are %d together, and it must exceed them" $grace $drain) }}
{{- end }}
{{- $names := list }}
{{- range (concat (include "offboard.environment" . | fromYamlArray) (include "offboard.nats" . | fromYamlArray) (include "offboard.mail" . | fromYamlArray) (include "offboard.databaseUrl" (dict "root" . "made" "any") | fromYamlArray)) }}
{{- $names = append $names .name }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if has .name $names }}
{{- $faults = append $faults (printf "extraEnv: %s is set by the chart; use the value that it has for it" .name) }}
{{- end }}
{{- end }}
{{- if $faults }}
{{- fail (printf "the values have %d fault(s):\n  - %s" (len $faults) (join "\n  - " $faults)) }}
{{- end }}
{{- end }}
