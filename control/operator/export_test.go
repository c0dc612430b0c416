package operator

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Compare says which object of a box is not what it shall be, or "".
func Compare(ctx context.Context, o Options, d control.DesiredBox) (string, error) {
	secrets, err := func() (Secrets, error) {
		gvr, _ := resourceOf(followed()[6].kind)
		got, err := o.Cluster.dynamic.Resource(gvr).Namespace(d.Namespace).Get(ctx, ConfigName, metav1.GetOptions{})
		if err != nil {
			return Secrets{}, err
		}
		return ReadSecrets(got)
	}()
	if err != nil {
		return "", err
	}
	secrets.TokenID = ""
	objects, err := Objects(o.Objects, d, secrets)
	if err != nil {
		return "", err
	}
	for _, want := range objects {
		got, err := o.Cluster.dynamic.Resource(want.Resource).Namespace(want.GetNamespace()).Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("there is no %s %s", want.GetKind(), want.GetName()), nil
		}
		if err != nil {
			return "", err
		}
		if at := Differs(want, got); at != "" {
			return fmt.Sprintf("%s %s differs at %s", want.GetKind(), want.GetName(), at), nil
		}
	}
	return "", nil
}
