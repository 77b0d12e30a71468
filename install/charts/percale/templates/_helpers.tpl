{{- /* The image of a component: by its digest of the imageSet, else by tag. (dict "root" $ "component" "daemon") */ -}}
{{- define "percale.image" -}}
{{- $digest := index .root.Values.imageSet .component -}}
{{- $name := printf "%s/percale" .root.Values.image.registry -}}
{{- if $digest -}}
{{ $name }}@{{ $digest }}
{{- else -}}
{{ $name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "percale.labels" -}}
app.kubernetes.io/name: percale
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* What every container is told of the cluster. */ -}}
{{- define "percale.env" -}}
- name: KUBERNETES_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: DATASTORE_TYPE
  value: {{ .Values.datastoreType | quote }}
{{- with .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
{{- end }}
{{- with .Values.apiServer.port }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ . | toString | quote }}
{{- end }}
{{- if eq .Values.datastoreType "etcdv3" }}
- name: ETCD_ENDPOINTS
  value: {{ required "etcd.endpoints is needed with datastoreType etcdv3" .Values.etcd.endpoints | quote }}
{{- end }}
- name: PUBLISH_CONF
  value: daemon
- name: CNI_CONF_NAME
  value: {{ .Values.cni.confName | quote }}
{{- end -}}

{{- /* What the installer is told of Calico: false, plugin (true) or all. */ -}}
{{- define "percale.takeOver" -}}
{{- $stage := toString .Values.cni.takeOver -}}
{{- if eq $stage "all" }}, --take-over=all{{ else if ne $stage "false" }}, --take-over{{ end -}}
{{- end -}}

{{- /* What the init container does: install, or, before the chart goes, the way back. */ -}}
{{- define "percale.mode" -}}
{{- if not .Values.cni.leave -}}
{{ include "percale.takeOver" . }}
{{- else if eq (toString .Values.cni.takeOver) "false" -}}
, --uninstall
{{- else -}}
, --give-back
{{- end -}}
{{- end -}}

{{- define "percale.installer" -}}
image: {{ include "percale.image" (dict "root" . "component" "install") }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
{{ include "percale.env" . }}
- name: PERCALE_CNI_SERVICE_ACCOUNT
  value: {{ .Release.Namespace }}/percale-cni
- name: CNI_NET_DIR
  value: {{ .Values.cni.confDir | quote }}
{{- with .Values.cni.mtu }}
- name: CNI_MTU
  value: {{ . | quote }}
{{- end }}
{{- with .Values.cni.config }}
- name: CNI_NETWORK_CONFIG
  value: {{ . | quote }}
{{- end }}
- name: UPDATE_CNI_BINARIES
  value: {{ .Values.cni.updateBinaries | quote }}
- name: SKIP_CNI_BINARIES
  value: {{ .Values.cni.skipBinaries | quote }}
- name: LOG_LEVEL
  value: {{ .Values.cni.logLevel | quote }}
resources:
{{ toYaml .Values.resources.install | indent 2 }}
securityContext:
  runAsUser: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL], add: [DAC_OVERRIDE, FOWNER]}
  # Writes to directories of the host, where SELinux is on.
  seLinuxOptions: {type: spc_t}
volumeMounts:
- {name: cni-bin, mountPath: /host/opt/cni/bin}
- {name: cni-conf, mountPath: /host/etc/cni/net.d}
- {name: state, mountPath: /var/lib/percale}
- {name: containerd-conf, mountPath: /host/etc/containerd, readOnly: true}
- {name: crio-conf, mountPath: /host/etc/crio, readOnly: true}
{{- if .Values.etcd.secret }}
- {name: etcd, mountPath: /calico-secrets, readOnly: true}
{{- end }}
{{- end -}}
