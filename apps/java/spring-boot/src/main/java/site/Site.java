package site;

import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.annotation.RegisteredOAuth2AuthorizedClient;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** What the starters make of themselves: everything behind oauth2Login, and a sign-out here too. */
@SpringBootApplication
@RestController
public class Site {
  public static void main(String[] arguments) {
    SpringApplication.run(Site.class, arguments);
  }

  @GetMapping("/token")
  public Map<String, String> token(@RegisteredOAuth2AuthorizedClient("pylon") OAuth2AuthorizedClient client) {
    return Map.of("token", client.getAccessToken().getTokenValue());
  }

  @GetMapping("/who")
  public Map<String, Object> who(@AuthenticationPrincipal OidcUser user) {
    return user.getClaims();
  }
}
