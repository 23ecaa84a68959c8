// Package csiclient drives the CSI sockets of a single-machine cluster as Kubernetes'
// sidecars and kubelet do: create, publish, stage, mount, and back. It is the one code
// path for volumes without Kubernetes. It imports no service and no cgo.
package csiclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Client holds connections to both drivers of the cluster in one data directory.
type Client struct {
	dir     string
	conns   map[storage.Driver]*grpc.ClientConn
	secrets map[string]map[string]string // by csi-sanity's names: CreateVolumeSecret, ...
}

// files are the two drivers' files below DIR/csi.
var files = map[storage.Driver]string{storage.RBD: "rbd", storage.CephFS: "cephfs"}

// Drivers are both drivers in the order in which they are listed.
var Drivers = []storage.Driver{storage.CephFS, storage.RBD}

// Open reads the secrets below dir (which only root can) and prepares the connections.
// fault.NotFound: there is no cluster with CSI services in dir.
func Open(dir string) (*Client, error) {
	c := &Client{dir: dir, conns: map[storage.Driver]*grpc.ClientConn{}}
	if err := readYAML(filepath.Join(dir, "csi", "secrets.yaml"), &c.secrets); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "there is no cluster with CSI services in %s: start one with `holdfast up --data-dir %s`", dir, dir)
		}
		return nil, err
	}
	for driver, name := range files {
		socket := filepath.Join(dir, "csi", name+".sock")
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", socket, err)
		}
		c.conns[driver] = conn
	}
	return c, nil
}

// Close ends the connections.
func (c *Client) Close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

func readYAML(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Admin returns a client of the API for what CSI has no calls for.
func (c *Client) Admin() *volumeapi.Client { return volumeapi.NewClient(volumeapi.Socket(c.dir)) }

// Secrets are those for making volumes, with what file holds on top: YAML or JSON, names and values.
// "" is no file.
func (c *Client) Secrets(file string) (map[string]string, error) {
	all := maps.Clone(c.secrets["CreateVolumeSecret"])
	if file == "" {
		return all, nil
	}
	var more map[string]string
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	if yaml.Unmarshal(data, &more) != nil { // whose error may quote a secret
		return nil, fault.New(fault.Invalid, "read secrets: %s is not YAML of names and texts", file)
	}
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	return all, nil
}

func (c *Client) controller(d storage.Driver) csi.ControllerClient {
	return csi.NewControllerClient(c.conns[d])
}

func (c *Client) node(d storage.Driver) csi.NodeClient { return csi.NewNodeClient(c.conns[d]) }

// classes turn a status code back into a class, so that the CLI can tell them apart.
var classes = map[codes.Code]error{
	codes.NotFound: fault.NotFound, codes.InvalidArgument: fault.Invalid, codes.AlreadyExists: fault.Exists,
	codes.FailedPrecondition: fault.Precondition, codes.ResourceExhausted: fault.Exhausted,
	codes.Unavailable: fault.Unavailable, codes.OutOfRange: fault.Range, codes.PermissionDenied: fault.Denied,
}

// explain strips gRPC's wrapping from err and says what was being done.
func explain(what string, err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := s.Message()
	if s.Code() == codes.Unavailable && strings.Contains(text, "connection error") {
		text = "the CSI services do not answer; `holdfast status` says what runs (" + text + ")"
	}
	if class, known := classes[s.Code()]; known {
		return fault.New(class, "%s: %s", what, text)
	}
	return fmt.Errorf("%s: %s", what, text)
}

// Volume is a volume as the drivers list it.
type Volume struct {
	Name      string            `json:"name"`
	ID        string            `json:"id"`
	Driver    storage.Driver    `json:"driver"`
	Bytes     storage.Bytes     `json:"bytes"`
	Nodes     []string          `json:"nodes,omitempty"` // that it is published to
	Abnormal  bool              `json:"abnormal"`
	Condition string            `json:"condition"`
	Mounts    []string          `json:"mounts,omitempty"` // of this directory's own making
	Context   map[string]string `json:"context,omitempty"`
	Claim     string            `json:"claim,omitempty"`  // NAMESPACE/NAME of the PersistentVolumeClaim
	Origin    *Origin           `json:"origin,omitempty"` // what it was made from; nil: it was made empty
}

// Origin is the source of a volume, which may be gone by now.
type Origin struct {
	Kind string `json:"kind"` // "volume" or "snapshot"
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // where it is known
}

func originOf(s *csi.VolumeContentSource) *Origin {
	switch {
	case s.GetSnapshot() != nil:
		return &Origin{Kind: "snapshot", ID: s.GetSnapshot().GetSnapshotId()}
	case s.GetVolume() != nil:
		return &Origin{Kind: "volume", ID: s.GetVolume().GetVolumeId()}
	default:
		return nil
	}
}

// claimOf reads what the provisioner told of the claim (--extra-create-metadata).
func claimOf(volumeContext map[string]string) string {
	namespace, name := volumeContext["csi.storage.k8s.io/pvc/namespace"], volumeContext["csi.storage.k8s.io/pvc/name"]
	if namespace == "" || name == "" {
		return name
	}
	return namespace + "/" + name
}

// Request describes a volume to be made.
type Request struct {
	Name       string
	Driver     storage.Driver
	Bytes      storage.Bytes
	Block      bool
	Filesystem string            // "" (the driver's choice), "xfs" or "ext4"; RBD only
	Parameters map[string]string // on top of DIR/csi/<driver>-params.yaml
	// At most one of them: the id of what the volume is made from. Its size is the source's
	// unless Bytes asks for more.
	FromSnapshot, FromVolume string
	ReadOnly                 bool // made to be read only
}

// source is CSI's form of what the volume is made from.
func (r *Request) source() *csi.VolumeContentSource {
	switch {
	case r.FromSnapshot != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: r.FromSnapshot},
		}}
	case r.FromVolume != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: r.FromVolume},
		}}
	default:
		return nil
	}
}

// Create makes a volume, or returns the one of that name.
func (c *Client) Create(ctx context.Context, r Request) (Volume, error) {
	parameters := map[string]string{}
	if err := readYAML(filepath.Join(c.dir, "csi", files[r.Driver]+"-params.yaml"), &parameters); err != nil {
		return Volume{}, err
	}
	for key, value := range r.Parameters {
		parameters[key] = value
	}
	response, err := c.controller(r.Driver).CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: r.Name, Parameters: parameters, Secrets: c.secrets["CreateVolumeSecret"],
		CapacityRange:       &csi.CapacityRange{RequiredBytes: int64(r.Bytes)},
		VolumeCapabilities:  []*csi.VolumeCapability{capability(r.Driver, r.Block, r.Filesystem, r.ReadOnly)},
		VolumeContentSource: r.source(),
	})
	if err != nil {
		return Volume{}, explain("create volume "+r.Name, err)
	}
	v := response.GetVolume()
	return Volume{
		Name: r.Name, ID: v.GetVolumeId(), Driver: r.Driver, Bytes: storage.Bytes(v.GetCapacityBytes()),
		Condition: "made", Context: v.GetVolumeContext(), Origin: originOf(v.GetContentSource()),
	}, nil
}

func capability(driver storage.Driver, block bool, filesystem string, readOnly bool) *csi.VolumeCapability {
	mode := csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	if driver == storage.CephFS {
		mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	}
	if readOnly {
		mode = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	}
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: filesystem}}
	}
	return c
}

// pageSize is how many volumes one call asks for.
const pageSize = 500

// List lists the volumes of both drivers.
func (c *Client) List(ctx context.Context) ([]Volume, error) {
	var list []Volume
	for _, driver := range Drivers {
		token := ""
		for {
			response, err := c.controller(driver).ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: pageSize, StartingToken: token})
			if err != nil {
				return nil, explain("list volumes", err)
			}
			for _, e := range response.GetEntries() {
				list = append(list, c.volume(driver, e.GetVolume(), e.GetStatus().GetPublishedNodeIds(), e.GetStatus().GetVolumeCondition()))
			}
			if token = response.GetNextToken(); token == "" {
				break
			}
		}
	}
	return list, nil
}

func (c *Client) volume(driver storage.Driver, v *csi.Volume, nodes []string, condition *csi.VolumeCondition) Volume {
	return Volume{
		Name: v.GetVolumeContext()["name"], ID: v.GetVolumeId(), Driver: driver, Bytes: storage.Bytes(v.GetCapacityBytes()),
		Nodes: nodes, Abnormal: condition.GetAbnormal(), Condition: condition.GetMessage(),
		Mounts: c.mounts(v.GetVolumeId()).Targets, Context: v.GetVolumeContext(),
		Claim: claimOf(v.GetVolumeContext()), Origin: originOf(v.GetContentSource()),
	}
}

// Find returns the volume of a name or an id. driver "" looks in both and refuses a
// name that both have (fault.Invalid).
func (c *Client) Find(ctx context.Context, nameOrID string, driver storage.Driver) (Volume, error) {
	list, err := c.List(ctx)
	if err != nil {
		return Volume{}, err
	}
	var found []Volume
	for _, v := range list {
		if (v.Name == nameOrID || v.ID == nameOrID) && (driver == "" || v.Driver == driver) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return c.unlisted(ctx, nameOrID, driver)
	default:
		return Volume{}, fault.New(fault.Invalid, "both drivers have a volume %q: say --type rbd or --type cephfs", nameOrID)
	}
}

// unlisted returns a volume that has an id and is not listed: ceph-csi's are when they are first used.
func (c *Client) unlisted(ctx context.Context, id string, driver storage.Driver) (Volume, error) {
	var refused error
	for _, d := range Drivers {
		if driver != "" && d != driver {
			continue
		}
		response, err := c.controller(d).ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: id})
		if err == nil {
			s := response.GetStatus()
			return c.volume(d, response.GetVolume(), s.GetPublishedNodeIds(), s.GetVolumeCondition()), nil
		}
		if status.Code(err) != codes.NotFound {
			refused = errors.Join(refused, explain("look for volume "+id, err))
		}
	}
	if refused != nil {
		return Volume{}, refused
	}
	return Volume{}, fault.New(fault.NotFound, "there is no volume %q: `holdfast volume list` shows those there are", id)
}

// Delete removes a volume that is mounted nowhere.
func (c *Client) Delete(ctx context.Context, v Volume) error {
	_, err := c.controller(v.Driver).DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.ID, Secrets: c.secrets["DeleteVolumeSecret"]})
	return explain("delete volume "+v.Name, err)
}

// Expand grows a volume, and where it is mounted here what is on it, and returns its new size.
func (c *Client) Expand(ctx context.Context, v Volume, size storage.Bytes) (storage.Bytes, error) {
	capacity := &csi.CapacityRange{RequiredBytes: int64(size)}
	response, err := c.controller(v.Driver).ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.ID, CapacityRange: capacity, Secrets: c.secrets["ControllerExpandVolumeSecret"],
	})
	if err != nil {
		return 0, explain("expand volume "+v.Name, err)
	}
	m := c.mounts(v.ID)
	if response.GetNodeExpansionRequired() && len(m.Targets) > 0 {
		_, err := c.node(v.Driver).NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			VolumeId: v.ID, VolumePath: m.Targets[0], StagingTargetPath: c.staging(v.ID), CapacityRange: capacity,
			VolumeCapability: capability(v.Driver, m.Block, "", false),
		})
		if err != nil {
			return 0, explain("grow what is on volume "+v.Name, err)
		}
	}
	return storage.Bytes(response.GetCapacityBytes()), nil
}
