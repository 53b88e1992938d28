// SPDX-License-Identifier: Apache-2.0

// Istio's own validation and translation of our objects: istio-check <request >report, both JSON.
//
// A request has the text of the objects, the trust domain, and the workloads that are asked about. In the report "problems" holds what
// Istio's validation says of an object, and "workloads" the Envoy filters that istiod would send to each (for one with a waypoint: to the
// waypoint, for the Service of its name). The caller's identity is read from filter state, as in a waypoint.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/security/authz/builder"
	"istio.io/istio/pilot/pkg/security/trustdomain"
	"istio.io/istio/pilot/pkg/serviceregistry/provider"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/util/protomarshal"

	"google.golang.org/protobuf/proto"
)

type workload struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
	Waypoint  string            `json:"waypoint"`
}

type filters struct {
	Custom []json.RawMessage `json:"custom"`
	HTTP   []json.RawMessage `json:"http"`
	TCP    []json.RawMessage `json:"tcp"`
}

type report struct {
	Objects   int                `json:"objects"`
	Problems  []string           `json:"problems"`
	Workloads map[string]filters `json:"workloads"`
}

type request struct {
	TrustDomain string     `json:"trust_domain"`
	Aliases     []string   `json:"aliases"`
	Provider    string     `json:"provider"`
	Objects     string     `json:"objects"`
	Workloads   []workload `json:"workloads"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	asked := request{}
	if err := json.Unmarshal(data, &asked); err != nil {
		return err
	}
	found := report{Problems: []string{}, Workloads: map[string]filters{}}
	configs, _, err := crd.ParseInputs(asked.Objects)
	if err != nil { // it validates too, all or nothing
		found.Problems = append(found.Problems, err.Error())
		return json.NewEncoder(os.Stdout).Encode(found)
	}
	found.Objects = len(configs)
	store := memory.Make(collections.PilotGatewayAPI())
	for _, one := range configs {
		problems := problemsOf(one)
		found.Problems = append(found.Problems, problems...)
		if len(problems) > 0 {
			continue
		}
		if _, err := store.Create(one); err != nil {
			return err
		}
	}
	push := pushOf(asked, store)
	bundle := trustdomain.NewBundle(asked.TrustDomain, asked.Aliases)
	for _, one := range asked.Workloads {
		policies := push.AuthzPolicies.ListAuthorizationPolicies(matcherOf(one))
		made := filters{}
		local := builder.New(bundle, push, policies, builder.Option{UseFilterState: true})
		custom := builder.New(bundle, push, policies, builder.Option{UseFilterState: true, IsCustomBuilder: true})
		if local != nil {
			if made.HTTP, err = shown(local.BuildHTTP()); err != nil {
				return err
			}
			if made.TCP, err = shown(local.BuildTCP()); err != nil {
				return err
			}
		}
		if custom != nil {
			if made.Custom, err = shown(custom.BuildHTTP()); err != nil {
				return err
			}
		}
		found.Workloads[one.Name] = made
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func problemsOf(one config.Config) []string {
	schema, ok := collections.All.FindByGroupVersionAliasesKind(one.GroupVersionKind)
	if !ok {
		return []string{fmt.Sprintf("%s: unknown", one.GroupVersionKind)}
	}
	warning, err := schema.ValidateConfig(one)
	if warning == nil && err == nil {
		return nil
	}
	return []string{fmt.Sprintf("%s %s/%s: error %v, warning %v", one.GroupVersionKind.Kind, one.Namespace, one.Name, err, warning)}
}

func pushOf(asked request, store model.ConfigStore) *model.PushContext {
	name := host.Name("authorizer.istio-system.svc.cluster.local")
	push := &model.PushContext{
		AuthzPolicies: model.GetAuthorizationPolicies(&model.Environment{ConfigStore: store}),
		Mesh: &meshconfig.MeshConfig{ExtensionProviders: []*meshconfig.MeshConfig_ExtensionProvider{{
			Name: asked.Provider,
			Provider: &meshconfig.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc{
				EnvoyExtAuthzGrpc: &meshconfig.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{
					Service: string(name), Port: 9000,
				},
			},
		}}},
	}
	push.ServiceIndex.HostnameAndNamespace = map[host.Name]map[string]*model.Service{
		name: {"istio-system": {Hostname: name}},
	}
	return push
}

func matcherOf(one workload) model.WorkloadPolicyMatcher {
	if one.Waypoint == "" {
		proxy := &model.Proxy{Type: model.SidecarProxy, ConfigNamespace: one.Namespace, Labels: one.Labels}
		return model.PolicyMatcherForProxy(proxy)
	}
	labels := map[string]string{"gateway.networking.k8s.io/gateway-name": one.Waypoint}
	proxy := &model.Proxy{Type: model.Waypoint, ConfigNamespace: one.Namespace, Labels: labels}
	service := &model.Service{Attributes: model.ServiceAttributes{
		Name: one.Name, Namespace: one.Namespace, ServiceRegistry: provider.Kubernetes,
	}}
	return model.PolicyMatcherForProxy(proxy).WithService(service)
}

func shown[T proto.Message](messages []T) ([]json.RawMessage, error) {
	made := make([]json.RawMessage, 0, len(messages))
	for _, one := range messages {
		text, err := protomarshal.ToJSON(one)
		if err != nil {
			return nil, err
		}
		made = append(made, json.RawMessage(text))
	}
	return made, nil
}
