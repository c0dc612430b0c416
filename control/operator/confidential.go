package operator

import (
	"encoding/base64"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Keys of a box's Secret. All but ConfigFile are variables of the gateway's environment too.
const (
	ConfigFile       = "openclaw.json"
	EnvProxyToken    = openclaw.EnvProxyToken
	EnvGatewayToken  = openclaw.EnvGatewayToken
	EnvTelegramToken = openclaw.EnvTelegramToken // only if the customer has given a bot
)

// secretEnvironment is the part of the Secret that is the gateway's environment.
func (b *builder) secretEnvironment() map[string][]byte {
	env := map[string][]byte{
		EnvProxyToken:   []byte(b.secrets.ProxyToken.Reveal()),
		EnvGatewayToken: []byte(b.secrets.GatewayToken.Reveal()),
	}
	if b.box.TelegramToken != "" {
		env[EnvTelegramToken] = []byte(b.box.TelegramToken.Reveal())
	}
	return env
}

func (b *builder) secret() *corev1.Secret {
	data := b.secretEnvironment()
	data[ConfigFile] = b.config
	meta := b.meta(ConfigName)
	meta.Annotations = map[string]string{AnnotationRotation: decimal(b.secrets.Rotation)}
	if b.secrets.TokenID != "" {
		meta.Annotations[AnnotationToken] = b.secrets.TokenID
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: meta,
		Type:       corev1.SecretTypeOpaque,
		Data:       data,
	}
}

// ReadSecrets reads back from a box's Secret what Objects put into it, so that a token is
// minted once only. The error is control.ErrInvalid, and says no secret, if a part is missing
// or was changed beyond use: then new ones have to be made.
func ReadSecrets(live *unstructured.Unstructured) (Secrets, error) {
	read := func(key string) (string, error) {
		encoded, _, _ := unstructured.NestedString(live.Object, "data", key)
		b, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(b) == 0 {
			return "", fmt.Errorf("read Secret %s/%s: %w: no usable %s", live.GetNamespace(), live.GetName(), control.ErrInvalid, key)
		}
		return string(b), nil
	}
	raw, err := read(EnvProxyToken)
	if err != nil {
		return Secrets{}, err
	}
	token, err := contract.ParseToken(raw)
	if err != nil {
		return Secrets{}, fmt.Errorf("read Secret %s/%s: %w: %w", live.GetNamespace(), live.GetName(), control.ErrInvalid, err)
	}
	gateway, err := read(EnvGatewayToken)
	if err != nil {
		return Secrets{}, err
	}
	annotations := live.GetAnnotations()
	rotation, err := strconv.ParseInt(annotations[AnnotationRotation], 10, 64)
	if err != nil {
		return Secrets{}, fmt.Errorf("read Secret %s/%s: %w: annotation %s is not a number", live.GetNamespace(), live.GetName(), control.ErrInvalid, AnnotationRotation)
	}
	return Secrets{ProxyToken: token, Rotation: rotation, TokenID: annotations[AnnotationToken], GatewayToken: secret.Text(gateway)}, nil
}
