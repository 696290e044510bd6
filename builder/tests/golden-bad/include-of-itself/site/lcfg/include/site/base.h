#include <site/base.h>
profile.components client
