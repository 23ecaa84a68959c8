package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// startControlPlane starts etcd, the API server, the controller manager and the scheduler inside
// node-a's network namespace, and waits until pods can be made.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	const etcd = "http://127.0.0.1:2379"
	if err := c.startControl("etcd", "--name=etcd", "--data-dir="+filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--unsafe-no-fsync",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=etcd=http://127.0.0.1:2380"); err != nil {
		return err
	}
	if err := c.startControl("kube-apiserver", "--etcd-servers="+etcd,
		"--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", apiPort), "--advertise-address="+addressA,
		"--service-cluster-ip-range="+services, "--allow-privileged=true",
		"--client-ca-file="+c.pki("ca.crt"), "--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"),
		"--kubelet-client-certificate="+c.pki("kubelet-client.crt"), "--kubelet-client-key="+c.pki("kubelet-client.key"),
		"--kubelet-certificate-authority="+c.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.pki("sa.pub"),
		"--service-account-signing-key-file="+c.pki("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"); err != nil {
		return err
	}
	ready := func(ctx context.Context) (bool, error) {
		_, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
		return err == nil, c.mustLive("etcd", "kube-apiserver")
	}
	if err := poll(ctx, "the API server", 200*time.Millisecond, ready); err != nil {
		return err
	}
	manager := c.pki("controller-manager.kubeconfig")
	if err := c.startControl("kube-controller-manager", "--kubeconfig="+manager,
		"--authentication-kubeconfig="+manager, "--authorization-kubeconfig="+manager,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.pki("sa.key"), "--root-ca-file="+c.pki("ca.crt"),
		// Its own default of 20 requests a second binds some four claims a second, whatever the driver does.
		"--kube-api-qps=200", "--kube-api-burst=400",
		// A pod is moved quickly off a node that is gone, and storage follows.
		"--attach-detach-reconcile-sync-period=10s"); err != nil {
		return err
	}
	scheduler := c.pki("scheduler.kubeconfig")
	if err := c.startControl("kube-scheduler", "--kubeconfig="+scheduler,
		"--authentication-kubeconfig="+scheduler, "--authorization-kubeconfig="+scheduler,
		"--bind-address=127.0.0.1", "--leader-elect=false"); err != nil {
		return err
	}
	account := func(ctx context.Context) (bool, error) {
		_, err := c.Kubectl(ctx, "get", "serviceaccount", "default")
		return err == nil, c.mustLive("kube-controller-manager", "kube-scheduler")
	}
	if err := poll(ctx, "the default service account", 200*time.Millisecond, account); err != nil {
		return err
	}
	c.Log.Info("control plane is ready")
	return nil
}

func (c *Cluster) startControl(name string, arguments ...string) error {
	argv := append([]string{"nsenter", "--net=/run/netns/" + namespaceA, "--", c.program(name)}, arguments...)
	_, err := c.spawn(name, nil, argv...)
	return err
}

// mustLive fails when one of the named processes has ended: nothing is worth waiting for then.
func (c *Cluster) mustLive(names ...string) error {
	running := map[string]bool{}
	for _, p := range c.state.snapshot().Processes {
		running[p.Name] = running[p.Name] || p.alive()
	}
	for _, name := range names {
		if !running[name] {
			return fmt.Errorf("%s has ended: see %s", name, filepath.Join(c.logDir(), name+".log"))
		}
	}
	return nil
}
