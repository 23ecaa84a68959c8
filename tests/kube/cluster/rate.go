package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

// Rate is what MeasureClaims saw.
type Rate struct {
	Class  string
	Claims int
	All    time.Duration // from the first claim made until the last is Bound
	Median time.Duration // of one claim, from when the API server took it until it was Bound
	Last   time.Duration // the slowest claim
}

func (r Rate) String() string {
	return fmt.Sprintf("%s: %d claims Bound in %.2f s, %.1f a second; one claim: median %.2f s, slowest %.2f s",
		r.Class, r.Claims, r.All.Seconds(), float64(r.Claims)/r.All.Seconds(), r.Median.Seconds(), r.Last.Seconds())
}

const rateNamespace = "claim-rate"

// MeasureClaims makes claims of 512 MiB of a StorageClass all at once, waits until all are Bound,
// deletes them and waits until their volumes are gone. The class is copied with Immediate binding: a scheduler and
// pods would be what is measured otherwise.
func (c *Cluster) MeasureClaims(ctx context.Context, class string, claims int) (rate Rate, err error) {
	api, err := c.apiClient()
	if err != nil {
		return Rate{}, err
	}
	immediate := class + "-rate"
	if err := c.copyClass(ctx, api, class, immediate); err != nil {
		return Rate{}, err
	}
	if _, err := c.Kubectl(ctx, "create", "namespace", rateNamespace); err != nil {
		return Rate{}, err
	}
	defer func() {
		_, deleted := c.Kubectl(ctx, "delete", "namespace", rateNamespace, "--timeout=10m")
		gone := poll(ctx, "the end of the volumes", time.Second, func(ctx context.Context) (bool, error) {
			left, err := c.Kubectl(ctx, "get", "persistentvolumes", "--output", `jsonpath={.items[?(@.spec.storageClassName=="`+immediate+`")].metadata.name}`)
			return len(left) == 0, err
		})
		_, class := c.Kubectl(ctx, "delete", "storageclass", immediate)
		err = errors.Join(err, deleted, gone, class)
	}()
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return measureClaims(limited, api, immediate, claims)
}

func measureClaims(ctx context.Context, api apiClient, class string, claims int) (Rate, error) {
	const path = "/api/v1/namespaces/" + rateNamespace + "/persistentvolumeclaims"
	start := time.Now()
	made := make([]time.Duration, claims)
	creators := make([]func(context.Context) error, 20) // claims asked for at a time
	for worker := range creators {
		creators[worker] = func(ctx context.Context) error {
			for i := worker; i < claims; i += len(creators) {
				body := fmt.Sprintf(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"claim-%d"},"spec":{"storageClassName":%q,
"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"512Mi"}}}}`, i, class)
				answer, err := api.do(ctx, http.MethodPost, path, []byte(body))
				if err != nil {
					return err
				}
				made[i] = time.Since(start)
				answer.Close()
			}
			return nil
		}
	}
	bound := make([]time.Duration, claims)
	watch := func(ctx context.Context) error { return watchBound(ctx, api, path, start, bound) }
	if err := together(ctx, append(creators, watch)...); err != nil {
		return Rate{}, fmt.Errorf("make claims of %s: %w", class, err)
	}
	each := make([]time.Duration, claims)
	for i := range each {
		each[i] = bound[i] - made[i]
	}
	slices.Sort(each)
	return Rate{Class: class, Claims: claims, All: slices.Max(bound), Median: each[claims/2], Last: each[claims-1]}, nil
}

// watchBound notes when each claim is Bound and returns when all are. A watch may end at any time; a
// new one begins with what there is.
func watchBound(ctx context.Context, api apiClient, path string, start time.Time, bound []time.Duration) error {
	for left := len(bound); left > 0; {
		events, err := api.do(ctx, http.MethodGet, path+"?watch=1", nil)
		if err != nil {
			return err
		}
		decoder := json.NewDecoder(events)
		for left > 0 {
			var event struct {
				Object struct {
					Metadata struct{ Name string }
					Status   struct{ Phase string }
				}
			}
			err := decoder.Decode(&event)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				events.Close()
				return fmt.Errorf("watch claims, %d of which are not Bound: %w", left, err)
			}
			var i int
			if _, err := fmt.Sscanf(event.Object.Metadata.Name, "claim-%d", &i); err != nil || i >= len(bound) {
				events.Close()
				return fmt.Errorf("a claim is called %q", event.Object.Metadata.Name)
			}
			if event.Object.Status.Phase == "Bound" && bound[i] == 0 {
				bound[i] = time.Since(start)
				left--
			}
		}
		events.Close()
	}
	return nil
}

// copyClass makes a StorageClass that is another one with Immediate binding.
func (c *Cluster) copyClass(ctx context.Context, api apiClient, from, to string) error {
	var object map[string]any
	if err := c.KubectlJSON(ctx, &object, "get", "storageclass", from); err != nil {
		return err
	}
	object["metadata"] = map[string]any{"name": to}
	object["volumeBindingMode"] = "Immediate"
	encoded, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode StorageClass: %w", err)
	}
	answer, err := api.do(ctx, http.MethodPost, "/apis/storage.k8s.io/v1/storageclasses", encoded)
	if err != nil {
		return err
	}
	return answer.Close()
}

// apiClient speaks to the API server as the administrator, without kubectl's own cost a call.
type apiClient struct{ http *http.Client }

func (c *Cluster) apiClient() (apiClient, error) {
	pair, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
	if err != nil {
		return apiClient{}, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	authority, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return apiClient{}, fmt.Errorf("read the authority's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return apiClient{&http.Client{Transport: &http.Transport{
		DialContext: dialInside, MaxIdleConnsPerHost: 32, TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13},
	}}}, nil
}

// do returns the answer's body, which the caller closes.
func (a apiClient) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://%s:%d%s", addressA, apiPort, path), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(response.Body) // the status says enough
		response.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return response.Body, nil
}
