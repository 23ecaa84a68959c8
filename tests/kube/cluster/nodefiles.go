package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/tests/kube/node"
)

// writeNodeFiles writes the configuration of containerd, CNI, kubelet and kube-proxy.
func (c *Cluster) writeNodeFiles(name string) error {
	dir := c.nodeDir(name)
	network := filepath.Join(dir, "cni", "10-bridge.conflist")
	if err := os.MkdirAll(filepath.Dir(network), 0o755); err != nil {
		return fmt.Errorf("create network configuration: %w", err)
	}
	files := map[string]string{
		filepath.Join(dir, "containerd.toml"): fmt.Sprintf(containerdFile, node.Socket, pauseImage, filepath.Dir(network)),
		network:                               fmt.Sprintf(networkFile, podsOf(name)),
		filepath.Join(dir, "kubelet.yaml"):    fmt.Sprintf(kubeletFile, addressOf(name), c.pki("ca.crt"), c.pki(name+".crt"), c.pki(name+".key"), node.Socket),
		filepath.Join(dir, "proxy.yaml"):      fmt.Sprintf(proxyFile, c.pki("proxy.kubeconfig"), pods),
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower a score.
const containerdFile = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "%s"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%s"
`

const networkFile = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/var/lib/cni"}}]}
`

// Works with cgroup version 1 and 2. Nothing is evicted: the tests share the disk with others.
// syncFrequency: how soon kubelet notices that a mounted volume has grown, among others.
const kubeletFile = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
healthzBindAddress: 127.0.0.1
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]s}
authorization: {mode: Webhook}
tlsCertFile: %[3]s
tlsPrivateKeyFile: %[4]s
containerRuntimeEndpoint: unix://%[5]s
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volume-plugins
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1Mi, imagefs.available: 1Mi, nodefs.inodesFree: "1"}
serializeImagePulls: false
syncFrequency: 5s
`

// masqueradeAll: without br_netfilter the answer of a pod behind a Service would go straight to a
// client on the same bridge, past the translation. conntrack's limits belong to the machine, not
// to a namespace: zero leaves them alone.
const proxyFile = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %s}
clusterCIDR: %s
nftables: {masqueradeAll: true}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
`
