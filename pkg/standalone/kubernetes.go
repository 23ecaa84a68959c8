package standalone

import (
	"bytes"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// namespace is where Holdfast's objects live in Kubernetes.
const namespace = "holdfast-system"

type kubernetesMeta struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

type kubernetesObject struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   kubernetesMeta    `json:"metadata"`
	Type       string            `json:"type,omitempty"`
	Data       map[string]string `json:"data,omitempty"`
	StringData map[string]string `json:"stringData,omitempty"`
}

// kubernetesObjects are the objects that join a Kubernetes cluster to this Ceph cluster:
// namespace, cluster map, and the users' secrets under the names that the StorageClasses
// of deploy/ refer to. The last secrets are those to mount below --credentials-dir.
func kubernetesObjects(fsid string, clusterMap []byte, users map[string]daemon.Entity, passphrase storage.Secret) ([]byte, error) {
	meta := func(name string) kubernetesMeta {
		return kubernetesMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/part-of": "holdfast"}}
	}
	secret := func(name, user string) kubernetesObject {
		return kubernetesObject{APIVersion: "v1", Kind: "Secret", Metadata: meta(name), Type: "Opaque", StringData: credentials(users[user])}
	}
	// RBD volumes can be encrypted: who makes and who opens them has the passphrase.
	opening := func(name, user string) kubernetesObject {
		object := secret(name, user)
		object.StringData[kms.Passphrase] = passphrase.Reveal()
		return object
	}
	// One secret for the credentials of all clusters, told apart by their keys: its name is in deploy/.
	perCluster := func(name, user string) kubernetesObject {
		object := secret(name, user)
		object.StringData = map[string]string{}
		for key, value := range credentials(users[user]) {
			object.StringData[fsid+"."+key] = value
		}
		return object
	}
	objects := []kubernetesObject{
		{APIVersion: "v1", Kind: "Namespace", Metadata: kubernetesMeta{
			Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}, // as deploy/ has it
		}},
		{
			APIVersion: "v1", Kind: "ConfigMap", Metadata: meta("holdfast-csi-config"),
			Data: map[string]string{"config.json": string(clusterMap)},
		},
		opening("holdfast-csi-rbd-provisioner", daemon.Provisioner),
		opening("holdfast-csi-rbd-node", daemon.Node),
		secret("holdfast-csi-cephfs-provisioner", daemon.Provisioner),
		secret("holdfast-csi-cephfs-node", daemon.Node),
		perCluster("holdfast-csi-credentials", daemon.Provisioner),
		perCluster("holdfast-csi-node-credentials", daemon.Node),
	}
	var out bytes.Buffer
	for _, object := range objects {
		data, err := yaml.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", object.Kind, object.Metadata.Name, err)
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	return out.Bytes(), nil
}
